"""Measure time and peak memory of training against batch size, seeds, images and width.

    python -m benchmarks.scaling

Each point is a separate process. Its peak resident memory comes from the operating system, and on
an accelerator also from the device. It compiles an epoch, runs it once unmeasured, then `--repeats`
times. All but one quantity have the report's values. An epoch has `--steps` steps. On the curve of
training images it has all images, and is measured once. The curves are also drawn as PNG.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks._cli import integers, make_parser, parse, positive

ROOT = Path(__file__).resolve().parents[1]

AXES = {
    "batch": "images a step",
    "seeds": "seeds trained together",
    "images": "training images",
    "width": "first channels",
}


class Point(NamedTuple):
    """One training to measure. `width` is the first convolution's; the others are in proportion."""

    norm: str
    batch: int
    seeds: int
    images: int
    width: int
    repeats: int


def measure(point: Point) -> dict[str, Any]:
    """Measure seconds of compilation and of an epoch, and peak memory of this process in MiB."""
    import jax

    from benchmarks._problem import make_problem
    from benchmarks._timing import summary
    from cifar_jax.device import peak_device_memory_bytes, peak_memory_bytes
    from cifar_jax.runner.programs import compile_device_epoch, stack_runs

    widths = (point.width, 2 * point.width, 4 * point.width)
    problem = make_problem(point.norm, point.batch, point.images, widths)
    state = stack_runs([problem.state(seed) for seed in range(point.seeds)])
    start = time.perf_counter()
    hyper = stack_runs([problem.hyper] * point.seeds)
    run = compile_device_epoch(problem.experiment, hyper, state, problem.data)
    compiled = time.perf_counter() - start
    samples = []
    for _ in range(point.repeats + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(run(hyper, state))
        samples.append(time.perf_counter() - start)
    timing = summary(samples[1:])
    return {
        "compile seconds": compiled,
        "seconds": timing._asdict(),
        "images/s": point.seeds * point.images / timing.median,
        "peak resident MiB": (peak_memory_bytes() or 0) / 2**20,
        "peak device MiB": (peak_device_memory_bytes(jax.devices()[0]) or 0) / 2**20 or None,
    }


def measure_apart(point: Point) -> dict[str, Any]:
    """Run `measure` in a separate process. Return the reason if it fails, for example memory."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--point", json.dumps(point._asdict())]
    # Make the error the last line of a traceback, without JAX's note.
    environment = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": f"exit status {done.returncode}: {last}"[:200]}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def points(args: argparse.Namespace) -> dict[str, list[Point]]:
    """Return the points of each curve."""
    usual = Point(args.norm, args.batch, 1, args.steps * args.batch, 32, args.repeats)
    return {
        "batch": [usual._replace(batch=b, images=args.steps * b) for b in args.batches],
        "seeds": [usual._replace(seeds=k) for k in args.seeds],
        "images": [usual._replace(images=n, repeats=1) for n in args.images],
        "width": [usual._replace(width=w) for w in args.widths],
    }


def draw(curves: dict[str, list[dict[str, Any]]], title: str) -> "Figure":
    """Draw time of an epoch, images a second, and memory, against each quantity.

    A dashed line is proportional to the quantity.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    from cifar_jax.report.drawing import GREY, PALETTE

    quantities = {
        "seconds an epoch": lambda m: m["seconds"]["median"],
        "images/s": lambda m: m["images/s"],
        "peak resident MiB": lambda m: m["peak resident MiB"],
    }
    figure = Figure(figsize=(max(2.6 * len(curves), 5), 7))
    axes = figure.subplots(len(quantities), len(curves), squeeze=False, sharex="col")
    figure.suptitle(title)
    for column, (name, curve) in enumerate(curves.items()):
        whole = [entry for entry in curve if "failed" not in entry]
        xs = [entry[name] for entry in whole]
        for row, (label, value) in enumerate(quantities.items()):
            panel = axes[row, column]
            ys = [value(entry) for entry in whole]
            panel.plot(xs, ys, "o-", color=PALETTE[0])
            if row == 0 and whole:
                proportional = [ys[0] * x / xs[0] for x in xs]
                panel.plot(xs, proportional, "--", color=GREY, label="in proportion")
                panel.set_yscale("log")
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_major_formatter("{x:g}")
            else:
                panel.set_ylim(0, 1.15 * max(ys, default=1))
            panel.set_xscale("log", base=2)
            panel.set_xticks(xs, [f"{x:,}" for x in xs])
            panel.minorticks_off()
            if column == 0:
                panel.set_ylabel(label)
        axes[-1, column].set_xlabel(AXES[name])
    axes[0, 0].legend()
    return figure


def _device() -> str:
    import jax

    from cifar_jax.device import cpu_count

    kind: str = jax.devices()[0].device_kind
    return f"{cpu_count()} CPU cores" if kind == "cpu" else kind


def rows(name: str, curve: list[dict[str, Any]]) -> list[list[str]]:
    """Return one line a point."""
    lines = []
    for entry in curve:
        what = f"{name} {entry[name]:,}"
        if "failed" in entry:
            lines.append([what, entry["failed"], "", "", "", ""])
            continue
        seconds = entry["seconds"]
        lines.append(
            [
                what,
                f"{seconds['median']:.2f}",
                f"{seconds['q3'] - seconds['q1']:.2f}",
                f"{entry['images/s']:,.0f}",
                f"{entry['compile seconds']:.1f}",
                f"{entry['peak resident MiB']:,.0f}",
            ]
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON and a PNG."""
    parser = make_parser("scaling", __doc__)
    batches, seeds = [32, 64, 128, 256, 512, 1024], [1, 2, 4, 8, 16, 32]
    images, widths = [5000, 10000, 20000, 45000], [8, 16, 32, 64]
    for flag, default in {
        "--batches": batches,
        "--seeds": seeds,
        "--images": images,
        "--widths": widths,
    }.items():
        text = ",".join(map(str, default))
        parser.add_argument(flag, type=integers, default=default, help=f"a curve ({text})")
    parser.add_argument("--only", choices=AXES, help="one curve")
    parser.add_argument("--norm", choices=("none", "batch"), default="batch")
    parser.add_argument("--batch", type=positive, default=128, help="where not varied (128)")
    parser.add_argument("--steps", type=positive, default=8, help="an epoch (8)")
    parser.add_argument("--repeats", type=positive, default=3, help="of each point (3)")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    short = {"batches": [32, 128], "seeds": [1, 2], "images": [1000, 2000], "widths": [16, 32]}
    args = parse(parser, argv, steps=2, repeats=2, **short)
    if args.point:
        print(json.dumps(measure(Point(**args.point))))
        return

    from benchmarks._timing import show_progress, table, write_json
    from cifar_jax.report.drawing import render
    from cifar_jax.storage import write_bytes

    curves: dict[str, list[dict[str, Any]]] = {}
    for name, curve in points(args).items():
        if args.only and name != args.only:
            continue
        curves[name] = []
        for point in curve:
            value = getattr(point, name)
            show_progress(f"{name} {value}")
            curves[name].append({name: value, **measure_apart(point)})
    show_progress("")
    header = ["what", "s an epoch", "IQR", "images/s", "compile s", "peak MiB"]
    print(table(header, [line for name, curve in curves.items() for line in rows(name, curve)]))
    settings = {name: getattr(args, name) for name in ("norm", "batch", "steps", "repeats")}
    write_json(args.output, {"settings": settings, **curves})
    varied = f"where not varied: batch {args.batch}, 1 seed, {args.steps} steps, width 32"
    title = f"CNN, norm {args.norm}, {_device()}; {varied}"
    png = render(lambda: draw(curves, title)).png()
    write_bytes(args.output.with_suffix(".png"), png)
    print(f"written: {args.output} and {args.output.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
