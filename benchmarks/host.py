"""Measure what the host does while a study trains: seconds outside compiled programs, by hook.

    python -m benchmarks.host

A study of ten seeds trains a small network. Its epochs take about 0.2 s on 2 CPU cores. First it
trains one seed after the other, then all in one program, with a tenth of the images.

    command    all of it, with loading, compiling, last checkpoints, evaluation and figures
    loop       from the begin of a group's training to the end of its last epoch
    programs   compiled programs in the loop
    outside    the loop outside of them; below it, each hook
    fsync      files and directories that Python flushes to the disk, in the whole command
"""

import contextlib
import gc
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks._cli import integers, make_parser, parse, positive
from benchmarks._timing import show_progress, table, write_json
from cifar_jax.main import main as command
from cifar_jax.runner import hooks, training
from cifar_jax.runner.results import read_results

STUDY = """import cifar_jax as cj

model = cj.CNN(num_classes=2, norm="batch", widths=({width},), hidden=8)
arms = {{"tiny": cj.Experiment(model, epochs={epochs}, batch_size=32)}}
"""
CLASSES = "disk,ring"  # of the built-in images: small files to begin with
HOOKS = ("Divergences", "Saves", "Rows", "TensorBoard", "Lines", "Bar", "Stops")


@contextlib.contextmanager
def _timed(spent: Counter[str]) -> Iterator[None]:
    """Add the seconds of the loop and of each hook to `spent`, and the number of fsyncs."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*args, **given)
            finally:
                spent[name] += time.perf_counter() - begun

        return call

    def counted(handle: int, flush: Callable[[int], None] = os.fsync) -> None:
        spent["fsync"] += 1
        flush(handle)

    changed: list[tuple[Any, str, Any]] = [(os, "fsync", counted)]
    changed.append((training, "_train", timed("loop", training._train)))
    for name in HOOKS:
        hook = getattr(hooks, name)
        changed.append((hook, "__call__", timed(name, hook.__call__)))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    for owner, name, new in changed:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old in before:
            setattr(owner, name, old)


def measure(together: int, seeds: int, epochs: int, images: int, width: int) -> dict[str, float]:
    """Return the seconds of a study's training, by what they are spent on.

    Args:
        together: seeds in one program.
        images: for training, shared by the runs of a program.
        width: channels of the only convolution.
    """
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        file, workdir = Path(directory) / "tiny.py", Path(directory) / "study"
        file.write_text(STUDY.format(width=width, epochs=epochs))
        flags = ["--workdir", str(workdir), "--dataset", "synthetic", "--classes", CLASSES]
        flags += [
            "--train-examples",
            str(images // together),
            "--val-examples",
            "64",
            "--seeds",
            str(seeds),
        ]
        flags += ["--seed-parallelism", str(together)]
        with _timed(spent), contextlib.redirect_stdout(io.StringIO()):
            begun = time.perf_counter()
            if command(["study", str(file), *flags]):
                raise RuntimeError("the study failed")
            spent["command"] = time.perf_counter() - begun
        runs = [read_results(path.parent) for path in workdir.glob("*/seed*/results.json")]
    spent["programs"] = sum(run.train_seconds for run in runs if run)
    spent["outside"] = spent["loop"] - spent["programs"]
    spent["epochs"] = epochs * (seeds // together)
    return dict(spent)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("host", __doc__)
    parser.add_argument("--seeds", type=positive, default=10, help="of the study (10)")
    parser.add_argument("--together", type=integers, default=[1, 10], help="in one program (1,10)")
    parser.add_argument("--epochs", type=positive, default=40, help="of a run (40)")
    parser.add_argument(
        "--images", type=positive, default=2048, help="of an epoch of a group (2048)"
    )
    parser.add_argument("--width", type=positive, default=4, help="channels (4)")
    args = parse(parser, argv, seeds=2, together=[1, 2], epochs=4, images=256)
    gc.set_threshold(1_000_000)  # As the command does.
    measured = {}
    for together in args.together:
        show_progress(f"{together} of {args.seeds} seeds together")
        sizes = args.seeds, args.epochs, args.images, args.width
        measured[together] = measure(together, *sizes)
    show_progress("")
    rows = []
    for name in ("command", "loop", "programs", "outside", *HOOKS):
        found = [measured[together][name] for together in args.together]
        shares = [
            f"{value:.2f} ({100 * value / one['loop']:.1f} %)"
            for value, one in zip(found, measured.values(), strict=True)
        ]
        rows.append([name, *shares])
    rows += [[n, *(f"{one[n]:,.0f}" for one in measured.values())] for n in ("epochs", "fsync")]
    print(table(["seconds (share of loop)", *(f"{n} together" for n in measured)], rows))
    named = ("seeds", "epochs", "images", "width")
    settings = {name: getattr(args, name) for name in named}
    write_json(args.output, {"settings": settings, "seconds by seeds together": measured})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
