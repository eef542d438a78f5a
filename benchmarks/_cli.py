"""Common flags of all benchmarks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SHORT_RESULTS = Path("runs") / "benchmarks"


def make_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Make a parser with the flags of every benchmark. `doc` is its module's docstring."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="small sizes: a minute or two")
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS / f"{name}.json",
        help=f"JSON to write (default benchmarks/results/{name}.json; "
        f"with --short {SHORT_RESULTS / name}.json)",
    )
    return parser


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add `--precision` of cifar_jax.main."""
    parser.add_argument(
        "--precision",
        choices=("float32", "tf32", "bfloat16"),
        default="float32",
        help="(float32); tf32 has an effect only on NVIDIA GPUs",
    )


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, **short: Any
) -> argparse.Namespace:
    """Parse the flags. With --short, the defaults are the values of `short`."""
    args = parser.parse_args(argv)
    if args.short:
        output = SHORT_RESULTS / parser.get_default("output").name
        parser.set_defaults(output=output, **short)
        args = parser.parse_args(argv)
    return args


def positive(text: str) -> int:
    """Parse a positive integer, for `type=`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def integers(text: str) -> list[int]:
    """Parse positive integers separated by commas, for `type=`."""
    return [positive(part) for part in text.split(",")]
