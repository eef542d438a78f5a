"""The host's side of training: compile once, then one call an epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.data.streaming import stream_batches
from cifar_jax.models.convolution import RUNS
from cifar_jax.training.epoch import (
    EpochMetrics,
    epoch_metrics,
    epoch_order,
    predict_logits,
    run_epoch,
    validate,
)
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec, TrainState, steps_per_epoch
from cifar_jax.training.step import StepMetrics, train_step

RunEpoch = Callable[[TrainState], tuple[TrainState, EpochMetrics]]
CompiledEpoch = Callable[[Hyperparams, TrainState], tuple[TrainState, EpochMetrics]]
Tree = TypeVar("Tree")


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


def compile_device_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, data: TrainData, runs: int = 1
) -> CompiledEpoch:
    """Compile an epoch over images that live on the device; the state it is given is donated.

    Args:
        hyper: an example; the program takes any values.
        runs: how many are stacked in `hyper` and `state`; their epochs are one program.
    """

    def epoch(
        hyper: Hyperparams, state: TrainState, data: TrainData
    ) -> tuple[TrainState, EpochMetrics]:
        return run_epoch(spec, hyper, state, data)

    program = jax.vmap(epoch, in_axes=(0, 0, None), axis_name=RUNS) if runs > 1 else epoch
    compiled = jax.jit(program, donate_argnums=1).lower(hyper, state, data).compile()
    return lambda hyper, state: compiled(hyper, state, data)


def compile_stream_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, source: HostData, val: TrainData
) -> CompiledEpoch:
    """Compile an epoch whose training images are fed by the host: the same batches, same order.

    Args:
        hyper: an example; the program takes any values.
        source: the training images.
        val: only its validation images, which live on the device, are used.
    """
    n, batch = len(source.rows), spec.batch_size
    image_shape = source.images.shape[1:]

    def compile_step(size: int) -> Any:
        images = jax.ShapeDtypeStruct((size, *image_shape), jnp.uint8)
        labels = jax.ShapeDtypeStruct((size,), jnp.int32)
        jitted = jax.jit(train_step, static_argnums=(0, 2), donate_argnums=3)
        return jitted.lower(spec, hyper, n, state, images, labels).compile()

    sizes = {batch} if n % batch == 0 else {batch, n % batch}
    steps = {size: compile_step(size) for size in sizes if size <= n}
    order = jax.jit(epoch_order, static_argnums=2)
    check = jax.jit(validate, static_argnums=0).lower(spec, state, val).compile()

    @jax.jit
    def collect(
        hyper: Hyperparams,
        first: jax.Array,
        metrics: list[StepMetrics],
        validation: tuple[jax.Array, jax.Array],
    ) -> EpochMetrics:
        stacked = StepMetrics(*(jnp.stack(m) for m in zip(*metrics, strict=True)))
        return epoch_metrics(spec, hyper, first, stacked, validation, n)

    def run(hyper: Hyperparams, state: TrainState) -> tuple[TrainState, EpochMetrics]:
        first = jnp.array(state.step)
        epoch = int(first) // steps_per_epoch(n, batch)
        rows = source.rows[np.asarray(order(state.key, epoch, n))]
        metrics = []
        for images, labels in stream_batches(source.images, source.labels, rows, batch):
            state, step = steps[len(labels)](hyper, state, images, labels)
            metrics.append(step)
        return state, collect(hyper, first, metrics, check(state, val))

    return run


def epochs(
    run: RunEpoch, state: TrainState, first: int, last: int, n_train: int, runs: int = 1
) -> Iterator[tuple[TrainState, list[EpochRow | Divergence]]]:
    """Train from epoch `first` to `last`, counted from 1, both included.

    Args:
        runs: how many states are stacked in `state`.

    Yields:
        After each epoch the state, valid until the next is asked for (its buffers are donated),
        and the epoch's rows, one a run; for a run whose loss is not finite, where that began in
        this epoch. Runs that train together share the clock.
    """
    for epoch in range(first, last + 1):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(run(state))
        seconds = (time.perf_counter() - start) / runs
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
    jitted = jax.jit(partial(predict_logits, spec))
    compiled = jitted.lower(state.params, state.batch_stats, images).compile()
    return lambda state, images: compiled(state.params, state.batch_stats, images)
