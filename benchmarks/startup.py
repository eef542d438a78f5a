"""Measure the time of `--help` and the time to the first training step.

    python -m benchmarks.startup

Every measurement is a separate process. "first step" is the time until the line that reports the
compiled program. The first step follows at once:

    nothing cached    images are made or decoded, programs are compiled
    images cached     programs are compiled
    all cached        the second run of a command

The operating system's file cache is always warm.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks._cli import make_parser, parse, positive
from benchmarks._timing import Timing, show_progress, summary, table, write_json

ROOT = Path(__file__).resolve().parents[1]
COMPILED = "compiled in"
"""Begins the line that a run prints when its program is ready."""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cifar_jax.main", *arguments]


def help_seconds() -> float:
    """Return the seconds of `--help`."""
    start = time.perf_counter()
    subprocess.run(_command("--help"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_step_seconds(arguments: list[str], cache: Path) -> float:
    """Return the seconds until a run has compiled its program, and stop the run.

    Raises:
        RuntimeError: the run ended earlier.
    """
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"CIFAR_JAX_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        workdir = str(Path(directory) / "run")
        start = time.perf_counter()
        with subprocess.Popen(
            _command(*arguments, "--workdir", workdir),
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout
            printed = []
            for line in process.stdout:
                printed.append(line)
                if line.startswith(COMPILED):
                    seconds = time.perf_counter() - start
                    process.kill()
                    return seconds
    raise RuntimeError("".join(printed))


def measure(args: argparse.Namespace) -> dict[str, Timing]:
    """Return all measurements, made in turns."""
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(directory) / "cache"

        def first_step() -> float:
            return first_step_seconds(args.arguments, cache)

        for repeat in range(args.repeats):
            measurements: dict[str, Callable[[], float]] = {"--help": help_seconds}
            if repeat == 0:
                measurements["first step, nothing cached"] = first_step
            measurements["first step, images cached"] = first_step
            measurements["first step, all cached"] = first_step
            for name, call in measurements.items():
                show_progress(f"repeat {repeat + 1}/{args.repeats}: {name}")
                if name == "first step, images cached":
                    shutil.rmtree(cache / "compiled", ignore_errors=True)
                samples.setdefault(name, []).append(call())
    return {name: summary(seconds) for name, seconds in samples.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("startup", __doc__)
    parser.add_argument(
        "arguments",
        nargs="*",
        default=["--bn", "--dataset", "synthetic"],
        metavar="-- flags",
        help="flags of the run (--bn --dataset synthetic)",
    )
    parser.add_argument("--repeats", type=positive, default=5, help="(5)")
    args = parse(parser, argv, repeats=1)

    measured = measure(args)
    show_progress("")
    lines = [
        [name, *(f"{value:.2f}" for value in timing[:3]), str(len(timing.samples))]
        for name, timing in measured.items()
    ]
    print(table(["what", "median s", "q1", "q3", "repeats"], lines))
    seconds = {name: timing._asdict() for name, timing in measured.items()}
    write_json(args.output, {"seconds": seconds})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
