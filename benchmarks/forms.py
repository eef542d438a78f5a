"""Time a whole training step with each form of the convolutions, on an accelerator.

    python -m benchmarks.forms --runs 1,5,10,40 --precisions float32,tf32,bfloat16 --save

Each program trains the report's CNN with a norm, batch 128, for some steps in one call. Several
runs are one program. `--save` writes the table that the package reads, `kernels/forms.json`.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax
import jax.numpy as jnp

from benchmarks._cli import integers, make_parser, parse, positive
from benchmarks._problem import make_problem
from benchmarks._timing import environment, show_progress, summary, write_json
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, TrainState, train_steps
from cifar_jax.kernels import forms
from cifar_jax.runner.programs import jit_over_runs, stack_runs

PRECISIONS = ("float32", "tf32", "bfloat16")


class Candidate(NamedTuple):
    """One program to time."""

    precision: str
    runs: int
    form: str

    def __str__(self) -> str:
        return f"{self.precision}, {self.runs} run{'s' * (self.runs > 1)}, {self.form}"


class Program(NamedTuple):
    """A compiled candidate: `call` trains the steps of one repeat."""

    call: Callable[[], jax.Array]  # the sum of the losses so far, of each run
    compile_seconds: float
    temporary_bytes: int


def candidates(precisions: Sequence[str], runs: Sequence[int], names: Sequence[str]) -> Any:
    """Yield what is measured: two forms only in float32, XLA's convolutions only for one run."""
    for count in runs:
        for precision in precisions:
            for form in names:
                if form in ("winograd", "split") and precision != "float32":
                    continue  # Winograd's transforms would multiply the rounding error.
                if form in ("xla", "mixed") and count > 1:
                    continue  # Grouped convolutions: three times as slow on an H100.
                yield Candidate(precision, count, form)


@functools.cache
def first_state(
    precision: str, norm: str, steps: int, batch: int
) -> tuple[Experiment, Hyper, Data, TrainState]:
    """Return a run of `steps` batches before its first step."""
    problem = make_problem(norm, batch, steps * batch, precision=precision)
    experiment, hyper, data, _ = problem
    return experiment, jax.device_put(hyper), data, problem.state()


def lower(candidate: Candidate, norm: str, steps: int, batch: int) -> Callable[[], Program]:
    """Trace a candidate. Return a function that compiles it, for another thread."""
    experiment, hyper, data, state = first_state(candidate.precision, norm, steps, batch)
    if candidate.runs > 1:  # Equal runs take as long as others.
        state, hyper = (stack_runs([tree] * candidate.runs) for tree in (state, hyper))
    else:
        state = jax.tree.map(jnp.copy, state)  # The program takes over its memory.

    def train(hyper: Hyper, state: TrainState, data: Data, start: Any, stop: Any) -> TrainState:
        return train_steps(experiment, hyper, data, state, start, stop)

    token = forms.forced.set(candidate.form)
    try:
        lowered = jit_over_runs(train, state, donate_argnums=1).lower(hyper, state, data, 0, steps)
    finally:
        forms.forced.reset(token)

    def compiled() -> Program:
        begun = time.perf_counter()
        program = lowered.compile()
        seconds = time.perf_counter() - begun
        newest = [state]

        def call() -> jax.Array:
            newest[0] = program(hyper, newest[0], data, 0, steps)
            return newest[0].loss_sum

        return Program(call, seconds, program.memory_analysis().temp_size_in_bytes)

    return compiled


def measure(program: Program, repeats: int) -> tuple[float, list[float]]:
    """Return the sum of a run's losses in the first call, and the seconds of each later call."""
    loss = float(jnp.ravel(program.call())[0])
    samples = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(program.call())
        samples.append(time.perf_counter() - begun)
    return loss, samples


def save(found: dict[Candidate, dict[str, Any]], norm: str, batch: int) -> None:
    """Write the milliseconds of this card into the package's table."""
    known = json.loads(forms.TABLE.read_text(encoding="utf-8"))
    steps: forms.Times = known.get(forms.card(), {}).get("steps", {})
    for (precision, runs, form), result in found.items():
        steps.setdefault(precision, {}).setdefault(str(runs), {})[form] = round(
            result["ms a step"], 4
        )
    here = environment()
    known[forms.card()] = {
        "measured": {
            "command": here["command"],
            "date": here["date"][:10],
            "jax": here["versions"]["jax"],
            "step": f"report's CNN, norm {norm}, batch {batch}",
        },
        "steps": steps,
    }
    forms.TABLE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def compile_all(
    wanted: Sequence[Candidate], norm: str, args: argparse.Namespace
) -> Iterator[tuple[Candidate, Program]]:
    """Compile the candidates in threads, and yield each that is ready in time.

    All are compiled before the first is timed, so that compiling does not disturb the times.
    """
    ends = time.monotonic() + args.limit
    pool = ThreadPoolExecutor(args.compilers)
    compiling: dict[Candidate, Future[Program]] = {}
    for candidate in wanted:
        if time.monotonic() < ends:
            show_progress(f"tracing: {candidate}")
            try:
                traced = lower(candidate, norm, args.steps, args.batch)
            except ValueError as error:  # No such products on this device.
                print(f"{candidate}: {error}")
            else:
                compiling[candidate] = pool.submit(traced)
    show_progress("compiling")
    wait(compiling.values(), ends - time.monotonic())
    pool.shutdown(cancel_futures=True)  # What still compiles would disturb the times.
    show_progress("")
    while compiling:  # Taking a program out frees its memory after the loop's body.
        candidate = next(iter(compiling))
        future = compiling.pop(candidate)
        if future.cancelled():
            print(f"{candidate}: not compiled within --limit")
            continue
        try:
            program = future.result()
        except Exception as error:  # Out of memory, for example.
            print(f"{candidate}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
        else:
            yield candidate, program


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags. Names are checked."""
    parser = make_parser("forms", __doc__)
    parser.add_argument("--runs", type=integers, default=[1, 5, 10, 40], help="(1,5,10,40)")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="(all three)")
    parser.add_argument("--forms", default=",".join(forms.FORMS), help="(all)")
    parser.add_argument("--norm", choices=("none", "batch"), default="batch", help="(batch)")
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    parser.add_argument("--steps", type=positive, default=88, help="a repeat (88)")
    parser.add_argument("--repeats", type=positive, default=3, help="of each candidate (3)")
    parser.add_argument("--limit", type=positive, default=600, help="seconds of compiling (600)")
    parser.add_argument("--compilers", type=positive, default=8, help="threads that compile (8)")
    parser.add_argument("--save", action="store_true", help="write the package's table")
    args = parse(parser, argv, runs=[1, 2], precisions="float32", steps=2, repeats=1)
    args.forms, args.precisions = args.forms.split(","), args.precisions.split(",")
    for flag, names, known in (
        ("--forms", args.forms, forms.FORMS),
        ("--precisions", args.precisions, PRECISIONS),
    ):
        if unknown := set(names) - set(known):
            parser.error(f"{flag}: {min(unknown)!r} is not one of {', '.join(known)}")
    if jax.default_backend() == "cpu":
        parser.error("forms are chosen on accelerators alone, and JAX finds none")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a row for each candidate, write a JSON."""
    args = parse_arguments(argv)
    settings = {name: getattr(args, name) for name in ("norm", "batch", "steps", "repeats")}
    wanted = list(candidates(args.precisions, args.runs, args.forms))
    found: dict[Candidate, dict[str, Any]] = {}
    row = "{:28}  {:>9}  {:>10}  {:>13}  {:>6}  {:>9}"
    print(f"{forms.card()}, report's CNN, norm {args.norm}, batch {args.batch}")
    print(row.format("", "ms a step", "images/s", "compiled in s", "MiB", "mean loss"))
    for candidate, program in compile_all(wanted, args.norm, args):
        loss, samples = measure(program, args.repeats)
        step = 1000 * summary(samples).median / args.steps
        found[candidate] = {
            "ms a step": step,
            "mean loss of the first steps": loss / args.steps,
            "compile seconds": program.compile_seconds,
            "temporary bytes": program.temporary_bytes,
            "samples": [1000 * sample / args.steps for sample in samples],
        }
        rate = 1000 * candidate.runs * args.batch / step
        values = [f"{step:.3f}", f"{rate:,.0f}", f"{program.compile_seconds:.1f}"]
        megabytes = f"{program.temporary_bytes / 2**20:,.0f}"
        print(
            row.format(str(candidate), *values, megabytes, f"{loss / args.steps:.5f}"), flush=True
        )
        named = {str(candidate): result for candidate, result in found.items()}
        write_json(args.output, {"settings": settings, "card": forms.card(), "candidates": named})
        if args.save:
            save(found, args.norm, args.batch)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
