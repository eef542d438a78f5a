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

from cifar_jax.data.streaming import import_grain, stream_batches
from cifar_jax.models.convolution import RUNS
from cifar_jax.training.compiler import jit
from cifar_jax.training.epoch import (
    EpochMetrics,
    epoch_metrics,
    epoch_order,
    finish_epoch,
    no_steps,
    predict_logits,
    train_steps,
    validate,
)
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec, TrainState, steps_per_epoch
from cifar_jax.training.step import StepMetrics, train_step

RunEpoch = Callable[[TrainState], tuple[TrainState, EpochMetrics]]
Validation = tuple[jax.Array, jax.Array]
Tree = TypeVar("Tree")

# Seconds between two looks at signals, well within the grace period after SIGTERM. On a CPU a call
# costs almost a step more, for the memory that it asks for anew.
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
        train_loss, train_accuracy, val_loss, val_accuracy, learning_rate: see `EpochMetrics`.
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
        step: within the epoch, counted from 1; None where the loss of every step is finite, but
            not that of the validation images, or not the mean.
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
    """An epoch as two programs: any number of its full batches a call, and the rest.

    They leave their arguments as they are, and train in the buffers of a copy: while a call runs,
    what was there before it can be saved. Called itself, it is a whole epoch.

    Attributes:
        full: full batches in an epoch.
        empty: metrics before the first step, (full,) each, or (runs, full).
        advance: takes hyper-parameters, the state after `start` batches, metrics, `start` and
            `stop`; returns the state after `stop` batches, and metrics.
        finish: takes hyper-parameters, the state after all full batches, and metrics; trains on the
            partial batch and validates.
    """

    full: int
    empty: StepMetrics
    advance: Callable[
        [Hyperparams, TrainState, StepMetrics, int, int], tuple[TrainState, StepMetrics]
    ]
    finish: Callable[[Hyperparams, TrainState, StepMetrics], tuple[TrainState, EpochMetrics]]

    def __call__(self, hyper: Hyperparams, state: TrainState) -> tuple[TrainState, EpochMetrics]:
        metrics = self.empty
        if self.full:
            state, metrics = self.advance(hyper, state, metrics, 0, self.full)
        return self.finish(hyper, state, metrics)


def _compile_row(
    spec: TrainSpec,
    hyper: Hyperparams,
    step: jax.Array,
    empty: StepMetrics,
    validation: Validation,
    n: int,
) -> Callable[[Hyperparams, jax.Array, StepMetrics, Validation], EpochMetrics]:
    """Compile a row of the history: from the state's step after an epoch, its metrics, validation.

    A program of its own, the same for both pipelines: in another XLA may round a mean otherwise.

    Args:
        hyper, step, empty, validation: examples or their shapes, `empty` of the full batches; with
            a leading axis where runs are stacked.
        n: training images.
    """
    steps = steps_per_epoch(n, spec.batch_size)

    def row(
        hyper: Hyperparams, step: jax.Array, metrics: StepMetrics, validation: Validation
    ) -> EpochMetrics:
        return epoch_metrics(spec, hyper, step - steps, metrics, validation, n)

    placed = _sharding(step)

    def example(shape: tuple[int, ...], one: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, one.dtype, sharding=placed)

    metrics = jax.tree.map(lambda one: example((*step.shape, steps), one), empty)
    validation = jax.tree.map(lambda one: example(one.shape, one), validation)
    jitted = jit(jax.vmap(row) if step.ndim else row, out_shardings=placed)
    compiled: Any = jitted.lower(hyper, step, metrics, validation).compile()
    return compiled


def _sharding(step: jax.Array) -> NamedSharding | None:
    """How runs are divided among several devices, which their programs must keep; None: not."""
    found = step.sharding
    return found if isinstance(found, NamedSharding) and found.num_devices > 1 else None


def device_epoch(spec: TrainSpec, runs: int = 1) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An epoch over images that live on the device, as two functions to be compiled.

    Args:
        runs: how many are stacked, in all arguments but the images and bounds.

    Returns:
        `train_steps`, of hyper-parameters, state, metrics, data, and the bounds of the steps; and
        `finish_epoch`, of hyper-parameters, state, metrics and data.
    """

    def steps(
        hyper: Hyperparams,
        state: TrainState,
        metrics: StepMetrics,
        data: TrainData,
        start: jax.Array,
        stop: jax.Array,
    ) -> tuple[TrainState, StepMetrics]:
        images, labels = data.train_images, data.train_labels
        return train_steps(spec, hyper, state, images, labels, metrics, start, stop)

    def rest(
        hyper: Hyperparams, state: TrainState, metrics: StepMetrics, data: TrainData
    ) -> tuple[TrainState, StepMetrics, Validation]:
        return finish_epoch(spec, hyper, state, data, metrics)

    if runs == 1:
        return steps, rest
    return (
        jax.vmap(steps, in_axes=(0, 0, 0, None, None, None), axis_name=RUNS),
        jax.vmap(rest, in_axes=(0, 0, 0, None), axis_name=RUNS),
    )


def compile_device_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, data: TrainData, runs: int = 1
) -> CompiledEpoch:
    """Compile an epoch over images that live on the device.

    Args:
        hyper: an example; the programs take any values.
        runs: how many are stacked in `hyper` and `state`; their epochs are one program. Where they
            are divided among devices, by their first axis, they stay so.
    """
    n = len(data.train_images)
    placed = _sharding(state.step)
    empty = jax.device_put(stack_runs([no_steps(spec, n)] * runs), placed)
    steps, rest = device_epoch(spec, runs)

    def bounds(*values: int) -> list[jax.Array]:
        return jax.device_put([np.int32(value) for value in values])

    copy = jit(partial(jax.tree.map, jnp.copy), out_shardings=placed)
    copied = copy.lower((state, empty)).compile()
    lowered = jit(rest, donate_argnums=1, out_shardings=placed).lower(hyper, state, empty, data)
    finish_steps = lowered.compile()
    row = _compile_row(spec, hyper, state.step, empty, lowered.out_info[-1], n)

    def finish(
        hyper: Hyperparams, state: TrainState, metrics: StepMetrics
    ) -> tuple[TrainState, EpochMetrics]:
        state, metrics, validation = finish_steps(hyper, *copied((state, metrics)), data)
        return state, row(hyper, state.step, metrics, validation)

    full = n // spec.batch_size
    advance_steps: Any = None
    if full:
        jitted = jit(steps, donate_argnums=(1, 2), out_shardings=placed)
        advance_steps = jitted.lower(hyper, state, empty, data, *bounds(0, full)).compile()

    def advance(
        hyper: Hyperparams, state: TrainState, metrics: StepMetrics, start: int, stop: int
    ) -> tuple[TrainState, StepMetrics]:
        trained: tuple[TrainState, StepMetrics] = advance_steps(
            hyper, *copied((state, metrics)), data, *bounds(start, stop)
        )
        return trained

    return CompiledEpoch(full, empty, advance, finish)


def compile_stream_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, source: HostData, val: TrainData
) -> CompiledEpoch:
    """Compile an epoch whose training images are fed by the host: the same batches, same order.

    Args:
        hyper: an example; the programs take any values.
        source: the training images.
        val: only its validation images, which live on the device, are used.

    Raises:
        UserError: if Grain cannot be imported.
    """
    import_grain()  # Before the long work.
    n, batch = len(source.rows), spec.batch_size
    full, partial_batch = n // batch, n % batch
    image_shape = source.images.shape[1:]

    def compile_step(size: int, donated: tuple[int, ...] = ()) -> Any:
        images = jax.ShapeDtypeStruct((size, *image_shape), jnp.uint8)
        labels = jax.ShapeDtypeStruct((size,), jnp.int32)
        jitted = jit(train_step, static_argnums=(0, 2), donate_argnums=donated)
        return jitted.lower(spec, hyper, n, state, images, labels).compile()

    # A call of `advance` takes many steps: they may take each other's buffers, not its argument's.
    step: Any = compile_step(batch, (3,)) if full else None
    last_step = compile_step(partial_batch) if partial_batch else None
    order = jit(epoch_order, static_argnums=2)
    lowered = jit(validate, static_argnums=0).lower(spec, state, val)
    check = lowered.compile()
    empty = no_steps(spec, n)
    row = _compile_row(spec, hyper, state.step, empty, lowered.out_info, n)

    def rows_of(state: TrainState) -> np.ndarray:
        epoch = int(state.step) // steps_per_epoch(n, batch)
        return source.rows[np.asarray(order(state.key, epoch, n))]

    def advance(
        hyper: Hyperparams, state: TrainState, metrics: StepMetrics, start: int, stop: int
    ) -> tuple[TrainState, StepMetrics]:
        rows = rows_of(state)[start * batch : stop * batch]
        state = jax.tree.map(jnp.copy, state)
        found = []
        for images, labels in stream_batches(source.images, source.labels, rows, batch):
            state, one = step(hyper, state, images, labels)
            found.append(one)
        columns = zip(metrics, zip(*jax.device_get(found), strict=True), strict=True)
        kept = (np.concatenate([old[:start], new, old[stop:]]) for old, new in columns)
        return state, StepMetrics(*map(jnp.asarray, kept))

    def finish(
        hyper: Hyperparams, state: TrainState, metrics: StepMetrics
    ) -> tuple[TrainState, EpochMetrics]:
        if last_step is not None:
            rows = rows_of(state)[full * batch :]
            state, last = last_step(hyper, state, source.images[rows], source.labels[rows])
            metrics = jax.tree.map(jnp.append, metrics, last)
        return state, row(hyper, state.step, metrics, check(state, val))

    return CompiledEpoch(full, empty, advance, finish)


@dataclass(frozen=True)
class Unfinished:
    """An epoch at a boundary between two steps.

    Attributes:
        steps: its full batches that are behind.
        metrics: theirs, (full,) each, or (runs, full).
        state: after them.
    """

    steps: int
    metrics: StepMetrics
    state: TrainState


class SteppedEpoch:
    """An epoch in calls of about `seconds`, with the host's turn between them.

    Args:
        program: the epoch.
        hyper: its hyper-parameters.
        at_boundary: called at the epoch's begin and after each call with where it stands; what it
            raises ends the epoch.
        begun: where the first epoch stands already; its state does not count.
        seconds: that a call should take; the first one is a single step.
    """

    def __init__(
        self,
        program: CompiledEpoch,
        hyper: Hyperparams,
        at_boundary: Callable[[Unfinished], None] = lambda _: None,
        begun: Unfinished | None = None,
        seconds: float = SEGMENT,
    ) -> None:
        self._program, self._hyper = program, hyper
        self._at_boundary, self._begun, self._seconds = at_boundary, begun, seconds
        self._steps = 1

    def __call__(self, state: TrainState) -> tuple[TrainState, EpochMetrics]:
        program, begun = self._program, self._begun
        self._begun = None
        if begun is None:
            here = Unfinished(0, program.empty, state)
        else:
            here = Unfinished(begun.steps, begun.metrics, state)
        self._at_boundary(here)
        while here.steps < program.full:
            start, stop = here.steps, min(here.steps + self._steps, program.full)
            clock = time.perf_counter()
            state, metrics = jax.block_until_ready(
                program.advance(self._hyper, here.state, here.metrics, start, stop)
            )
            each = (time.perf_counter() - clock) / (stop - start)
            self._steps = max(1, int(self._seconds / max(each, 1e-6)))
            here = Unfinished(stop, metrics, state)
            self._at_boundary(here)
        return program.finish(self._hyper, here.state, here.metrics)


def epochs(
    run: RunEpoch,
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
        steps = columns.pop("diverged_step")
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
    spec: TrainSpec, state: TrainState, images: jax.Array
) -> Callable[[TrainState, jax.Array], jax.Array]:
    """Compile evaluation of all `images`, uint8 (N, H, W, 3), to logits (N, classes)."""
    jitted = jit(partial(predict_logits, spec))
    compiled = jitted.lower(state.params, state.batch_stats, images).compile()
    return lambda state, images: compiled(state.params, state.batch_stats, images)
