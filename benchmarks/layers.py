"""Time each layer's forward and backward pass, and the whole training step, with both kernels.

    python -m benchmarks.layers --repeats 9

    xla     the plain Flax layer
    fast    `cifar_jax.kernels.fast` of it

A pass is one call of a program. On a CPU that favours XLA, whose convolution gradients are far
slower in a loop. A step of "xla" is one call too. The steps of "fast" are a loop, as in a run.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._cli import make_parser, parse, positive
from benchmarks._problem import CLASSES, WIDTHS, Problem, make_problem
from benchmarks._timing import Timing, show_progress, table, time_interleaved, write_json
from cifar_jax.core.model import CNN
from cifar_jax.core.norms import BatchNorm, norm_layer
from cifar_jax.core.train import TrainState, train_step, train_steps
from cifar_jax.kernels import fast, jit

Calls = dict[str, Callable[[], Any]]

SIZES = [(32, 3, 32), (16, 32, 64), (8, 64, 128)]
"""Height (= width), input and output channels of the report's three convolutions."""


class Layer(nn.Module):
    """A model of a function of (x, train) that makes its layers."""

    function: Callable[[jax.Array, bool], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Apply the function."""
        return self.function(x, train)


class Block(CNN):
    """The first block of the report's CNN."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, H, W, C) -> (N, H / 2, W / 2, widths[0])."""
        return self.block(x, 1, train)


class Case(NamedTuple):
    """A model and the shape of its inputs. `first` if they need no gradient."""

    model: nn.Module
    shape: tuple[int, ...]
    first: bool = False


def _conv(features: int, x: jax.Array, train: bool) -> Any:
    return nn.Conv(features, (3, 3))(x)


def _pool(x: jax.Array, train: bool) -> jax.Array:
    return nn.max_pool(nn.relu(x), (2, 2), (2, 2))


def _group(x: jax.Array, train: bool) -> jax.Array:
    return norm_layer("group", "norm")(x, train=train)


def cases(batch: int) -> Iterator[tuple[str, Case]]:
    """Return the layers of the report's CNNs, and group norm."""
    for index, (size, c, k) in enumerate(SIZES, start=1):
        images, wide = (batch, size, size, c), (batch, size, size, k)
        yield f"conv{index}", Case(Layer(partial(_conv, k)), images, index == 1)
        yield f"relu+pool{index}", Case(Layer(_pool), wide)
        yield f"batch norm{index}", Case(BatchNorm(), wide)
        yield f"group norm{index}", Case(Layer(_group), wide)
        for norm in ("none", "batch"):
            block = Block(norm=norm, widths=(k,))
            yield f"block{index}, norm {norm}", Case(block, images, index == 1)


def _passes(model: Any, variables: Any, x: jax.Array, first: bool) -> Callable[[], Any]:
    """Return a call of the compiled forward and backward pass."""
    rest = {name: value for name, value in variables.items() if name != "params"}

    @jit
    def run(params: Any, rest: Any, x: jax.Array) -> Any:
        def forward(params: Any, x: jax.Array) -> Any:
            everything = {"params": params, **rest}
            return model.apply(everything, x, train=True, mutable=["batch_stats"])

        inputs = (params,) if first else (params, x)
        function = partial(forward, x=x) if first else forward
        y, pull, updates = jax.vjp(function, *inputs, has_aux=True)
        return y, pull(jnp.cos(y)), updates

    return partial(run, variables.get("params", {}), rest, x)


def layer_calls(case: Case) -> Calls:
    """Return calls of both kernels of a layer, on the same numbers."""
    model, shape, first = case
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    variables = model.init(jax.random.key(0), x[:1], train=False)
    bodies = {"xla": model, "fast": fast(model)}
    return {name: _passes(body, variables, x, first) for name, body in bodies.items()}


def problems(norm: str, batch: int, steps: int, widths: tuple[int, ...]) -> dict[str, Problem]:
    """Return the training of one of the report's CNNs with both kernels."""
    plain = CNN(num_classes=CLASSES, norm=norm, widths=widths)
    models = {"xla": plain, "fast": fast(plain)}
    return {name: make_problem(norm, batch, batch * steps, model=m) for name, m in models.items()}


def _loop(problem: Problem, steps: int) -> Callable[[], Any]:
    experiment, hyper, data, _ = problem
    program, state = jit(partial(train_steps, experiment)), problem.state()
    return lambda: program(hyper, data, state, 0, steps)


def _single(problem: Problem, steps: int) -> Callable[[], Any]:
    experiment, hyper, data, _ = problem
    program = jit(partial(train_step, experiment, hyper, len(data.train_labels)))
    batches = [np.array_split(array, steps) for array in data[:2]]
    initial = problem.state()

    def call() -> TrainState:
        state = initial
        for images, labels in zip(*batches, strict=True):
            state = program(state, images, labels)
        return state

    return call


def step_calls(norm: str, batch: int, steps: int, widths: tuple[int, ...] = WIDTHS) -> Calls:
    """Return calls that train on `steps` batches."""
    problem = problems(norm, batch, steps, widths)
    return {"xla": _single(problem["xla"], steps), "fast": _loop(problem["fast"], steps)}


def _rows(name: str, timings: dict[str, Timing], scale: float) -> list[list[str]]:
    return [
        [
            f"{name} {candidate}",
            *(f"{1000 * scale * value:.2f}" for value in (t.median, t.q1, t.q3)),
            f"{timings['xla'].median / t.median:.2f}",
        ]
        for candidate, t in timings.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("layers", __doc__)
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    parser.add_argument("--repeats", type=positive, default=9, help="of each candidate (9)")
    parser.add_argument("--steps", type=positive, default=16, help="steps a repeat (16)")
    parser.add_argument("--only", choices=["layers", "steps"], help="one half of the table")
    args = parse(parser, argv, steps=3, repeats=3)

    measured: dict[str, dict[str, Timing]] = {}
    rows: list[list[str]] = []
    if args.only != "steps":
        for name, case in cases(args.batch):
            calls = layer_calls(case)
            measured[name] = time_interleaved(calls, args.repeats, progress=show_progress)
            rows += _rows(name, measured[name], 1)
    if args.only != "layers":
        for norm in ("none", "batch"):
            name = f"step, norm {norm}"
            calls = step_calls(norm, args.batch, args.steps)
            measured[name] = time_interleaved(calls, args.repeats, progress=show_progress)
            rows += _rows(name, measured[name], 1 / args.steps)
    show_progress("")
    print(table(["what", "median ms", "q1", "q3", "x faster than XLA"], rows))
    results = {
        what: {name: timing._asdict() for name, timing in timings.items()}
        for what, timings in measured.items()
    }
    settings = {"batch": args.batch, "repeats": args.repeats, "steps": args.steps}
    write_json(args.output, {"settings": settings, "seconds a call": results})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
