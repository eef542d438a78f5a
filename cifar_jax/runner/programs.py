"""The host's side of training: compile once, then a few calls an epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from cifar_jax.core import train as core
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, Metrics, TrainState
from cifar_jax.data.streaming import import_grain, stream_batches
from cifar_jax.kernels import jit

Tree = TypeVar("Tree")

# Seconds between two looks at signals, well within the grace period after SIGTERM. On a CPU a call
# costs almost one more step, because it asks for its memory again.
SEGMENT = 10.0


class HostData(NamedTuple):
    """Training images that stay on the host, and which of them to train on.

    Attributes:
        images: uint8 (N, H, W, 3), usually memory-mapped.
        labels: int32 (N,).
        rows: the training images among them, integers (n,).
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class EpochRow:
    """One epoch of a run's history, in Python numbers.

    Attributes:
        epoch: counted from 1.
        train_loss, train_accuracy, val_loss, val_accuracy, learning_rate: see `core.train.Metrics`.
        seconds: wall-clock time of training and validation.
        images_per_second: training images over `seconds`.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class Divergence:
    """Where the loss of a run stopped being finite.

    Attributes:
        epoch: counted from 1.
        step: within the epoch, counted from 1; None if the loss of every step is finite, but not
            the validation loss or the mean.
    """

    epoch: int
    step: int | None

    def __str__(self) -> str:
        if self.step is None:
            return f"training diverged at the end of epoch {self.epoch}: its loss is not finite"
        return f"training diverged in epoch {self.epoch}, step {self.step}: the loss is not finite"


def stack_runs(trees: Sequence[Tree]) -> Tree:
    """States or hyper-parameters of several runs as one with a leading axis; one stays as it is."""
    if len(trees) == 1:
        return trees[0]
    stacked: Tree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return stacked


def unstack_state(state: TrainState, index: int, runs: int) -> TrainState:
    """One run's state out of `stack_runs`'s of that many."""
    if runs == 1:
        return state
    one: TrainState = jax.tree.map(lambda leaf: leaf[index], state)
    return one


@dataclass(frozen=True)
class CompiledEpoch:
    """An epoch as two programs: any number of its full batches a call, and its end.

    They leave their arguments as they are and train in the buffers of a copy. While a call runs,
    the state before it can be saved. Called itself, it is a whole epoch.

    Attributes:
        full: full batches in an epoch.
        steps: steps in an epoch.
        advance: takes hyper-parameters, the state after `start` batches, `start` and `stop`;
            returns the state after `stop` batches.
        finish: takes hyper-parameters and the state after all full batches; trains on the partial
            batch and validates.
    """

    full: int
    steps: int
    advance: Callable[[Hyper, TrainState, int, int], TrainState]
    finish: Callable[[Hyper, TrainState], tuple[TrainState, Metrics]]

    def __call__(self, hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        if self.full:
            state = self.advance(hyper, state, 0, self.full)
        return self.finish(hyper, state)


def _sharding(state: TrainState) -> NamedSharding | None:
    """How runs are divided among several devices, which their programs must keep; None: not."""
    found = state.step.sharding
    return found if isinstance(found, NamedSharding) and found.num_devices > 1 else None


def over_runs(function: Callable[..., Any], stacked: int, runs: int) -> Callable[..., Any]:
    """Map a function over runs, which are the leading axis of its first `stacked` arguments."""
    if runs == 1:
        return function

    def mapped(*args: Any) -> Any:
        axes = [0] * stacked + [None] * (len(args) - stacked)
        return jax.vmap(function, in_axes=axes)(*args)

    return mapped


def _compile_end(
    experiment: Experiment, hyper: Hyper, state: TrainState, data: Data, n_train: int, runs: int
) -> Callable[[Hyper, TrainState], tuple[TrainState, Metrics]]:
    """Compile `end_epoch`, the same program for both pipelines: another might round otherwise."""

    def end(
        hyper: Hyper, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> tuple[TrainState, Metrics]:
        return core.end_epoch(experiment, hyper, n_train, state, images, labels)

    jitted = jit(over_runs(end, 2, runs), donate_argnums=1, out_shardings=_sharding(state))
    compiled = jitted.lower(hyper, state, data.val_images, data.val_labels).compile()
    return lambda hyper, state: compiled(hyper, state, data.val_images, data.val_labels)


def compile_device_epoch(
    experiment: Experiment, hyper: Hyper, state: TrainState, data: Data, runs: int = 1
) -> CompiledEpoch:
    """Compile an epoch over images that live on the device.

    Args:
        hyper: an example; the programs take any values.
        runs: how many are stacked in `hyper` and `state`; their epochs are one program. Where they
            are divided among devices, by their first axis, they stay so.
    """
    n, sharding = len(data.train_labels), _sharding(state)
    full = n // experiment.batch_size

    def steps(
        hyper: Hyper, state: TrainState, data: Data, start: jax.Array, stop: jax.Array
    ) -> TrainState:
        return core.train_steps(experiment, hyper, data, state, start, stop)

    def last(hyper: Hyper, state: TrainState, data: Data) -> TrainState:
        return core.train_last(experiment, hyper, data, state)

    def bounds(*values: int) -> list[jax.Array]:
        return jax.device_put([np.int32(value) for value in values])

    copy = jit(partial(jax.tree.map, jnp.copy), out_shardings=sharding).lower(state).compile()
    options: dict[str, Any] = {"donate_argnums": 1, "out_shardings": sharding}
    last_step = jit(over_runs(last, 2, runs), **options).lower(hyper, state, data).compile()
    end = _compile_end(experiment, hyper, state, data, n, runs)
    some_steps: Any = None
    if full:
        jitted = jit(over_runs(steps, 2, runs), **options)
        some_steps = jitted.lower(hyper, state, data, *bounds(0, full)).compile()

    def advance(hyper: Hyper, state: TrainState, start: int, stop: int) -> TrainState:
        new: TrainState = some_steps(hyper, copy(state), data, *bounds(start, stop))
        return new

    def finish(hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        return end(hyper, last_step(hyper, copy(state), data))

    return CompiledEpoch(full, experiment.steps_per_epoch(n), advance, finish)


def compile_stream_epoch(
    experiment: Experiment, hyper: Hyper, state: TrainState, source: HostData, data: Data
) -> CompiledEpoch:
    """Compile an epoch whose training images are fed by the host: the same batches, same order.

    Args:
        hyper: an example; the programs take any values.
        source: the training images.
        data: only its validation images, which live on the device, are used.

    Raises:
        UserError: if Grain cannot be imported.
    """
    import_grain()  # Before the long work.
    n, batch = len(source.rows), experiment.batch_size
    full = n // batch

    def compile_step(size: int) -> Any:
        images = jax.ShapeDtypeStruct((size, *source.images.shape[1:]), jnp.uint8)
        labels = jax.ShapeDtypeStruct((size,), jnp.int32)
        jitted = jit(core.train_step, static_argnums=(0, 2), donate_argnums=3)
        return jitted.lower(experiment, hyper, n, state, images, labels).compile()

    step: Any = compile_step(batch) if full else None
    last_step = compile_step(n % batch) if n % batch else None
    end = _compile_end(experiment, hyper, state, data, n, 1)
    order = jit(core.epoch_order, static_argnums=2)

    def rows_of(state: TrainState) -> np.ndarray:
        epoch = int(state.step) // experiment.steps_per_epoch(n)
        return source.rows[np.asarray(order(state.key, epoch, n))]

    def advance(hyper: Hyper, state: TrainState, start: int, stop: int) -> TrainState:
        rows = rows_of(state)[start * batch : stop * batch]
        state = jax.tree.map(jnp.copy, state)
        for images, labels in stream_batches(source.images, source.labels, rows, batch):
            state = step(hyper, state, images, labels)
        return state

    def finish(hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        rows = rows_of(state)[full * batch :]
        state = jax.tree.map(jnp.copy, state)
        if last_step is not None:
            state = last_step(hyper, state, source.images[rows], source.labels[rows])
        return end(hyper, state)

    return CompiledEpoch(full, experiment.steps_per_epoch(n), advance, finish)


class SteppedEpoch:
    """An epoch in calls of about `seconds`, with the host's turn between them.

    Args:
        program: the epoch.
        hyper: its hyper-parameters.
        at_boundary: called at the start of the epoch and after each call, with the number of steps
            of the epoch so far and the state; an exception that it raises ends the epoch.
        steps: full batches of the first epoch that are done already.
        seconds: that a call should take; the first one is a single step.
    """

    def __init__(
        self,
        program: CompiledEpoch,
        hyper: Hyper,
        at_boundary: Callable[[int, TrainState], None] = lambda steps, state: None,
        steps: int = 0,
        seconds: float = SEGMENT,
    ) -> None:
        self._program, self._hyper = program, hyper
        self._at_boundary, self._steps, self._seconds = at_boundary, steps, seconds
        self._call = 1

    def __call__(self, state: TrainState) -> tuple[TrainState, Metrics]:
        program = self._program
        start, self._steps = self._steps, 0
        self._at_boundary(start, state)
        while start < program.full:
            stop = min(start + self._call, program.full)
            clock = time.perf_counter()
            state = jax.block_until_ready(program.advance(self._hyper, state, start, stop))
            each = (time.perf_counter() - clock) / (stop - start)
            self._call = max(1, int(self._seconds / max(each, 1e-6)))
            start = stop
            self._at_boundary(start, state)
        return program.finish(self._hyper, state)


def epochs(
    run: Callable[[TrainState], tuple[TrainState, Metrics]],
    state: TrainState,
    first: int,
    last: int,
    n_train: int,
    runs: int = 1,
    spent: float = 0.0,
) -> Iterator[tuple[TrainState, list[EpochRow | Divergence]]]:
    """Train from epoch `first` to `last`, counted from 1, both included.

    Args:
        runs: how many states are stacked in `state`.
        spent: seconds that the first epoch has taken already.

    Yields:
        After each epoch the state and the epoch's rows, one a run; for a run whose loss is not
        finite, where that began in this epoch. Runs that train together share the clock.
    """
    for epoch in range(first, last + 1):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(run(state))
        seconds = (time.perf_counter() - start) / runs + (spent if epoch == first else 0.0)
        columns = {k: np.atleast_1d(v) for k, v in jax.device_get(metrics)._asdict().items()}
        steps = columns.pop("bad_step")
        rows: list[EpochRow | Divergence] = []
        for i, step in enumerate(steps):
            # The shortest decimals of the same float32: 0.01, not 0.009999999776482582.
            values = {name: float(str(column[i])) for name, column in columns.items()}
            if step >= 0 or not np.isfinite(list(values.values())).all():
                rows.append(Divergence(epoch, int(step) + 1 if step >= 0 else None))
                continue
            speed = n_train / seconds
            rows.append(EpochRow(epoch=epoch, seconds=seconds, images_per_second=speed, **values))
        yield state, rows


def compile_predict(
    experiment: Experiment, state: TrainState, images: jax.Array
) -> Callable[[TrainState, jax.Array], jax.Array]:
    """Compile evaluation of all `images`, uint8 (N, H, W, 3), to logits (N, classes)."""
    compiled: Any = jit(partial(core.predict, experiment)).lower(state, images).compile()
    return compiled
