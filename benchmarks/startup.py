"""Measure the start of a run, and a whole short run.

    python -m benchmarks.startup

Every measurement is a separate process. "first step" is the time until the line that reports the
compiled program. The first step follows at once. "whole run" is the time until the command ends:

    nothing cached    images are made or decoded, programs are compiled, Python's files too
    images cached     programs are compiled
    all cached        the second run of a command

The operating system's file cache is always warm. A timeline shows the parts of a run with nothing
and with all cached. Noting them takes some time too.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks._cli import make_parser, parse, positive
from benchmarks._timing import Timing, show_progress, summary, table, write_json
from cifar_jax.report.drawing import PALETTE, render
from cifar_jax.storage import write_bytes

ROOT = Path(__file__).resolve().parents[1]
COMPILED = "compiled in"
"""Begins the line that a run prints when its program is ready."""
RUN = ["--bn", "--dataset", "synthetic", "--epochs", "1", "--train-examples", "1280"]
Part = tuple[str, float, float]  # name, begin and end


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cifar_jax.main", *arguments]


def help_seconds() -> float:
    """Return the seconds of `--help`."""
    start = time.perf_counter()
    subprocess.run(_command("--help"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _environment(cache: Path) -> dict[str, str]:
    """Return the environment of a run with all its caches in `cache`."""
    dropped = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    own = {"CIFAR_JAX_CACHE": str(cache), "PYTHONPYCACHEPREFIX": str(cache / "bytecode")}
    return kept | own | {"PYTHONUNBUFFERED": "1"}


def run_seconds(arguments: list[str], cache: Path, whole: bool) -> tuple[float, float]:
    """Return the seconds until a run has compiled its program, and until it ended.

    Args:
        arguments: flags of the run.
        cache: its caches.
        whole: whether to let it end. Else it is stopped, and the second value is NaN.

    Raises:
        RuntimeError: the run failed.
    """
    first = end = math.nan
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        start = time.perf_counter()
        with subprocess.Popen(
            _command(*arguments, "--workdir", str(Path(directory) / "run")),
            cwd=ROOT,
            env=_environment(cache),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout
            printed = []
            for line in process.stdout:
                printed.append(line)
                if line.startswith(COMPILED):
                    first = time.perf_counter() - start
                    if not whole:
                        process.kill()
            if whole and process.wait() == 0:
                end = time.perf_counter() - start
    if math.isnan(end if whole else first):
        raise RuntimeError("".join(printed))
    return first, end


def measure_parts(arguments: list[str], cache: Path) -> list[Part]:
    """Return the parts of a run, see `benchmarks._parts`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        flags = [*arguments, "--workdir", str(Path(directory) / "run")]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks._parts", repr(time.time()), *flags],
            cwd=ROOT,
            env=_environment(cache),
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
    return [(name, begin, end) for name, begin, end in json.loads(done.stdout.splitlines()[-1])]


def draw_timelines(timelines: dict[str, list[Part]]) -> Figure:
    """Draw a bar for each part of each timeline, in the order of their beginnings."""
    figure = Figure(figsize=(8, 9))
    panels = figure.subplots(len(timelines), 1, squeeze=False)[:, 0]
    for axes, (name, parts) in zip(panels, timelines.items(), strict=True):
        *parts, (_, end, _) = sorted(parts, key=lambda part: part[1])
        names = list(dict.fromkeys(part for part, _, _ in parts))
        for part, begin, stop in parts:
            width = max(stop - begin, 0.003 * end)
            axes.barh(names.index(part), width, left=begin, color=PALETTE[0])
        for row, part in enumerate(names):
            seconds = sum(stop - begin for other, begin, stop in parts if other == part)
            last = max(stop for other, _, stop in parts if other == part)
            axes.text(last + 0.006 * end, row, f"{seconds:.2f} s", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.1 * end))
        axes.set_xlabel("seconds after the command")
        axes.set_title(f"{name}: {end:.1f} s")
        axes.grid(axis="y", visible=False)
    return figure


def measure(args: argparse.Namespace) -> tuple[dict[str, Timing], dict[str, list[Part]]]:
    """Return all measurements, made in turns, and the timelines."""
    samples: dict[str, list[float]] = {}
    timelines = {}

    def note(name: str, seconds: float) -> None:
        samples.setdefault(name, []).append(seconds)

    with tempfile.TemporaryDirectory() as directory:
        cache = Path(directory) / "cache"
        for repeat in range(args.repeats):
            show_progress(f"repeat {repeat + 1}/{args.repeats}")
            note("--help", help_seconds())
            if repeat == 0:
                note("first step, nothing cached", run_seconds(args.arguments, cache, False)[0])
            shutil.rmtree(cache / "compiled", ignore_errors=True)
            # The first time to its end, which also caches what a run needs after its first step.
            note("first step, images cached", run_seconds(args.arguments, cache, repeat == 0)[0])
            first, end = run_seconds(args.arguments, cache, True)
            note("first step, all cached", first)
            note("whole run, all cached", end)
        show_progress("timelines")
        timelines["all cached"] = measure_parts(args.arguments, cache)
        shutil.rmtree(cache)
        timelines["nothing cached"] = measure_parts(args.arguments, cache)
    return {name: summary(seconds) for name, seconds in samples.items()}, timelines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON and the timelines as PNG."""
    parser = make_parser("startup", __doc__)
    parser.add_argument(
        "arguments",
        nargs="*",
        default=RUN,
        metavar="-- flags",
        help=f"flags of the run ({' '.join(RUN)})",
    )
    parser.add_argument("--repeats", type=positive, default=5, help="(5)")
    args = parse(parser, argv, repeats=1)

    measured, timelines = measure(args)
    show_progress("")
    lines = [
        [name, *(f"{value:.2f}" for value in timing[:3]), str(len(timing.samples))]
        for name, timing in measured.items()
    ]
    print(table(["what", "median s", "q1", "q3", "repeats"], lines))
    seconds = {name: timing._asdict() for name, timing in measured.items()}
    write_json(args.output, {"seconds": seconds, "timelines": timelines})
    picture = args.output.with_suffix(".png")
    write_bytes(picture, render(lambda: draw_timelines(timelines)).png())
    print(f"written: {args.output}, {picture}")


if __name__ == "__main__":
    main()
