"""Time a whole training step with each form of the convolutions, on an accelerator.

    python -m benchmarks.forms --runs 1,5,10,40 --precisions float32,tf32,bfloat16 --save

Each program trains the report's CNN with a norm, batch 128, for some steps in one call. Several
runs are one program. `--save` writes the table that the package reads, `kernels/forms.json`.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax

from benchmarks._cli import integers, make_parser, parse, positive
from benchmarks._problem import make_problem
from benchmarks._timing import environment, show_progress, summary, table, write_json
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, TrainState, train_steps
from cifar_jax.kernels import forms, jit
from cifar_jax.runner.programs import over_runs, stack_runs

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

    call: Callable[[], Any]
    compile_seconds: float
    temporary_bytes: int


def candidates(precisions: Sequence[str], runs: Sequence[int], names: Sequence[str]) -> Any:
    """Yield what is measured: Winograd only in float32, grouped convolutions not beyond 10 runs."""
    for count in runs:
        for precision in precisions:
            for form in names:
                if form == "winograd" and precision != "float32":
                    continue  # Its transforms would multiply the rounding error.
                if form == "xla" and count > 10:
                    continue  # It is slower and takes minutes to compile.
                yield Candidate(precision, count, form)


def lower(candidate: Candidate, norm: str, steps: int, batch: int) -> Callable[[], Program]:
    """Trace a candidate. Return a function that compiles it, for another thread."""
    problem = make_problem(norm, batch, steps * batch, precision=candidate.precision)
    experiment, hyper, data, _ = problem
    count = candidate.runs
    states = [problem.state(seed) for seed in range(count)]
    state = stack_runs(states) if count > 1 else states[0]
    hyper = jax.device_put(stack_runs([hyper] * count) if count > 1 else hyper)

    def train(hyper: Hyper, state: TrainState, data: Data, start: Any, stop: Any) -> TrainState:
        return train_steps(experiment, hyper, data, state, start, stop)

    token = forms.forced.set(candidate.form)
    try:
        lowered = jit(over_runs(train, state), donate_argnums=1).lower(hyper, state, data, 0, steps)
    finally:
        forms.forced.reset(token)

    def compiled() -> Program:
        begun = time.perf_counter()
        program = lowered.compile()
        seconds = time.perf_counter() - begun
        newest = [state]

        def call() -> Any:
            newest[0] = program(hyper, newest[0], data, 0, steps)
            return newest[0].step

        return Program(call, seconds, program.memory_analysis().temp_size_in_bytes)

    return compiled


def measure(program: Program, repeats: int) -> list[float]:
    """Return the seconds of each call, after a first one that does not count."""
    samples = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        jax.block_until_ready(program.call())
        samples.append(time.perf_counter() - begun)
    return samples[1:]


def save(found: dict[Candidate, dict[str, Any]], norm: str, batch: int) -> None:
    """Write the milliseconds of this card into the package's table."""
    known = json.loads(forms.TABLE.read_text(encoding="utf-8"))
    steps: forms.Times = known.get(forms.card(), {}).get("steps", {})
    for (precision, runs, form), result in found.items():
        steps.setdefault(precision, {}).setdefault(str(runs), {})[form] = result["ms a step"]
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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("forms", __doc__)
    parser.add_argument("--runs", type=integers, default=[1, 5, 10, 40], help="(1,5,10,40)")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="(all three)")
    parser.add_argument("--forms", default=",".join(forms.FORMS), help=f"({','.join(forms.FORMS)})")
    parser.add_argument("--norm", choices=("none", "batch"), default="batch", help="(batch)")
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    parser.add_argument("--steps", type=positive, default=88, help="a repeat (88)")
    parser.add_argument("--repeats", type=positive, default=3, help="of each candidate (3)")
    parser.add_argument("--limit", type=positive, default=600, help="seconds for all (600)")
    parser.add_argument("--compilers", type=positive, default=4, help="threads that compile (4)")
    parser.add_argument("--save", action="store_true", help="write the package's table")
    args = parse(parser, argv, runs=[1, 2], precisions="float32", steps=2, repeats=1)
    names, precisions = args.forms.split(","), args.precisions.split(",")
    if unknown := set(names) - set(forms.FORMS):
        parser.error(f"--forms: {min(unknown)!r} is not one of {', '.join(forms.FORMS)}")
    if unknown := set(precisions) - set(PRECISIONS):
        parser.error(f"--precisions: {min(unknown)!r} is not one of {', '.join(PRECISIONS)}")
    if jax.default_backend() == "cpu":
        parser.error("forms are chosen on accelerators alone, and JAX finds none")

    ends = time.monotonic() + args.limit
    found: dict[Candidate, dict[str, Any]] = {}
    wanted = list(candidates(precisions, args.runs, names))
    with ThreadPoolExecutor(args.compilers) as pool:
        compiling: dict[Candidate, Future[Program]] = {}
        for candidate in wanted:
            traced = lower(candidate, args.norm, args.steps, args.batch)
            compiling[candidate] = pool.submit(_unless(ends, traced))
        for candidate, future in compiling.items():
            show_progress(str(candidate))
            try:
                program = future.result()
                seconds = summary(measure(program, args.repeats))
            except Exception as error:  # Out of memory, or no time left: the others go on.
                print(f"{candidate}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
                continue
            found[candidate] = {
                "ms a step": 1000 * seconds.median / args.steps,
                "compile seconds": program.compile_seconds,
                "temporary bytes": program.temporary_bytes,
                "samples": [1000 * sample / args.steps for sample in seconds.samples],
            }
            del program, future
            compiling[candidate] = Future()  # Free its memory.
    show_progress("")
    lines = []
    for candidate, result in found.items():
        rate = 1000 * candidate.runs * args.batch / result["ms a step"]
        lines.append(
            [
                str(candidate),
                f"{result['ms a step']:.3f}",
                f"{rate:,.0f}",
                f"{result['compile seconds']:.1f}",
                f"{result['temporary bytes'] / 2**20:,.0f}",
            ]
        )
    print(table([forms.card(), "ms a step", "images/s", "compiled in s", "MiB"], lines))
    settings = {name: getattr(args, name) for name in ("norm", "batch", "steps", "repeats")}
    named = {str(candidate): result for candidate, result in found.items()}
    write_json(args.output, {"settings": settings, "card": forms.card(), "candidates": named})
    if args.save:
        save(found, args.norm, args.batch)
    print(f"written: {args.output}")


def _unless(ends: float, function: Callable[[], Program]) -> Callable[[], Program]:
    """Return the function, made to fail after a time."""

    def checked() -> Program:
        if time.monotonic() > ends:
            raise TimeoutError("--limit is over")
        return function()

    return checked


if __name__ == "__main__":
    main()
