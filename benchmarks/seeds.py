"""Compare seeds that train together in one program with seeds one after the other.

    python -m benchmarks.seeds --seeds 2,4,8

    one by one   a program for one seed, called for each
    together     one program, `jax.vmap` over the seeds
    sharded      the same on several devices (on a CPU: --cpu-devices), which share the seeds; each
                 has all images

All candidates train the same seeds on the same number of images, in turns. Times are of a whole
epoch of all seeds.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax

from benchmarks._cli import add_precision, integers, make_parser, parse, positive
from benchmarks._problem import Problem, make_problem, training_flops
from benchmarks._timing import Timing, show_progress, table, time_interleaved, write_json
from cifar_jax.core.train import Metrics, TrainState
from cifar_jax.runner.devices import on_all, runs_mesh, spread
from cifar_jax.runner.programs import compile_device_epoch, stack_runs

Call = Callable[[], Any]
RunEpoch = Callable[[TrainState], tuple[TrainState, Metrics]]


def _one_by_one(run: RunEpoch, states: list[TrainState]) -> Call:
    def call() -> Any:
        metrics = []
        for i, state in enumerate(states):
            states[i], one = run(state)
            metrics.append(one)
        return metrics

    return call


def _together(problem: Problem, seeds: int, mesh: Any = None) -> Call:
    experiment, hyper, data, _ = problem
    state = spread(stack_runs([problem.state(seed) for seed in range(seeds)]), mesh)
    hypers = spread(stack_runs([hyper] * seeds), mesh)
    data = on_all(data, mesh)
    run = partial(compile_device_epoch(experiment, hypers, state, data), hypers)
    return _one_by_one(run, [state])


def candidates(problem: Problem, run: RunEpoch, seeds: int) -> dict[str, Call]:
    """Return the ways to train a number of seeds. `run` is the epoch of one seed."""
    calls = {"one by one": _one_by_one(run, [problem.state(seed) for seed in range(seeds)])}
    if seeds > 1:
        show_progress(f"compiling: {seeds} seeds")
        calls["together"] = _together(problem, seeds)
        if (mesh := runs_mesh(seeds)) is not None:
            calls["sharded"] = _together(problem, seeds, mesh)
    return calls


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("seeds", __doc__)
    parser.add_argument("--seeds", type=integers, default=[2, 4, 8], help="counts (2,4,8)")
    parser.add_argument("--norm", choices=("none", "batch"), default="batch")
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    parser.add_argument("--steps", type=positive, default=4, help="an epoch (4)")
    parser.add_argument("--repeats", type=positive, default=5, help="of each candidate (5)")
    parser.add_argument(
        "--cpu-devices", type=positive, help="number of devices that share the CPU's cores"
    )
    add_precision(parser)
    args = parse(parser, argv, seeds=[2], steps=2, repeats=2)
    if args.cpu_devices:
        jax.config.update("jax_num_cpu_devices", args.cpu_devices)

    n_train = args.steps * args.batch
    problem = make_problem(args.norm, args.batch, n_train, precision=args.precision)
    show_progress("compiling: 1 seed")
    experiment, hyper, data, _ = problem
    one = partial(compile_device_epoch(experiment, hyper, problem.state(), data), hyper)
    measured: dict[int, dict[str, Timing]] = {}
    lines = []
    for seeds in args.seeds:
        calls = candidates(problem, one, seeds)
        measured[seeds] = time_interleaved(calls, args.repeats, progress=show_progress)
        base = measured[seeds]["one by one"].median
        images = seeds * len(problem.host.rows)
        for name, timing in measured[seeds].items():
            rate = images / timing.median
            lines.append(
                [
                    f"{seeds} seeds {name}",
                    *(f"{value:.2f}" for value in timing[:3]),
                    f"{rate:,.0f}",
                    f"{rate * training_flops() / 1e9:.1f}",
                    f"{base / timing.median:.2f}",
                ]
            )
    show_progress("")
    header = ["what", "median s", "q1", "q3", "images/s", "GFLOP/s", "x one by one"]
    print(table(header, lines))
    named = ("norm", "batch", "steps", "repeats", "precision")
    settings = {name: getattr(args, name) for name in named}
    seconds = {
        str(seeds): {name: timing._asdict() for name, timing in timings.items()}
        for seeds, timings in measured.items()
    }
    write_json(args.output, {"settings": settings, "seconds an epoch of all seeds": seconds})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
