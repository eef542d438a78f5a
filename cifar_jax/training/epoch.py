"""An epoch as a compiled program, or two: shuffle, all steps, validation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cifar_jax.data.augment import normalise
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.precision import in_precision
from cifar_jax.training.state import (
    ORDER,
    TrainData,
    TrainSpec,
    TrainState,
    draw_key,
    learning_rate_schedule,
    steps_per_epoch,
)
from cifar_jax.training.step import StepMetrics, train_step

# Images a forward pass of evaluation; both divide 5,000 and 10,000. On a CPU what a smaller batch
# leaves stays in the cache: 1.3 times as fast. On accelerators nothing has been measured.
EVAL_BATCH, CPU_EVAL_BATCH = 250, 100


class EpochMetrics(NamedTuple):
    """One row of a run's history; fields are float32 (), or have a leading epoch axis.

    Attributes:
        train_loss: mean over the epoch's images, in train mode, running; with label smoothing or
            mixup that of the softened labels, which the validation loss is not.
        train_accuracy: likewise, a fraction.
        val_loss: mean over the validation images, in evaluation mode, after the epoch.
        val_accuracy: likewise, a fraction.
        learning_rate: at the epoch's first step; "step" keeps it during the epoch.
        diverged_step: int32 (), the first step whose loss is not finite, counted from 0 within the
            epoch; -1 where there is none.
    """

    train_loss: jax.Array
    train_accuracy: jax.Array
    val_loss: jax.Array
    val_accuracy: jax.Array
    learning_rate: jax.Array
    diverged_step: jax.Array


def epoch_order(key: jax.Array, epoch: jax.Array | int, n: int) -> jax.Array:
    """Order in which an epoch visits the training images: int32 (n,), a permutation."""
    return jax.random.permutation(draw_key(key, ORDER, epoch), n)


def summarise_steps(metrics: StepMetrics, batch_size: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Mean loss and accuracy over an epoch's n images from its steps' metrics, (steps,) each."""
    sizes = jnp.full(metrics.loss.shape, batch_size).at[-1].set((n - 1) % batch_size + 1)
    return jnp.sum(metrics.loss * sizes) / n, jnp.sum(metrics.correct) / n


def first_nonfinite_step(losses: jax.Array) -> jax.Array:
    """Index of the first of an epoch's losses, (steps,), that is not finite, or -1: int32 ()."""
    bad = ~jnp.isfinite(losses)
    return jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)


def no_steps(spec: TrainSpec, n: int) -> StepMetrics:
    """Metrics of an epoch's full batches before the first of them: zeros, (n // batch size,)."""
    full = n // spec.batch_size
    correct = jnp.float32 if spec.regularisers.mixup else jnp.int32
    return StepMetrics(jnp.zeros(full, jnp.float32), jnp.zeros(full, correct))


def train_steps(
    spec: TrainSpec,
    hyper: Hyperparams,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    metrics: StepMetrics,
    start: jax.Array | int,
    stop: jax.Array | int,
) -> tuple[TrainState, StepMetrics]:
    """Some full batches of an epoch.

    Args:
        state: after the epoch's first `start` batches.
        images: uint8 (N, H, W, 3).
        labels: int32 (N,).
        metrics: of all full batches, (N // batch size,); see `no_steps`.
        start, stop: int32 (), within the epoch; where they are traced, one program takes any.

    Returns:
        The new state, and the metrics with those from `start` to `stop` filled in.
    """
    n = images.shape[0]
    order = epoch_order(state.key, state.step // steps_per_epoch(n, spec.batch_size), n)
    rows = order[: n // spec.batch_size * spec.batch_size].reshape(-1, spec.batch_size)

    def body(
        step: jax.Array, carry: tuple[TrainState, StepMetrics]
    ) -> tuple[TrainState, StepMetrics]:
        state, metrics = carry
        index = rows[step]
        state, one = train_step(spec, hyper, n, state, images[index], labels[index])
        return state, jax.tree.map(lambda all_, new: all_.at[step].set(new), metrics, one)

    return lax.fori_loop(start, stop, body, (state, metrics))


def train_rest(
    spec: TrainSpec,
    hyper: Hyperparams,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    metrics: StepMetrics,
) -> tuple[TrainState, StepMetrics]:
    """The partial batch at the end of an epoch, where there is one.

    It is a step of its own shape: padding it would change BatchNorm's statistics.

    Args:
        state: after the full batches.
        images: uint8 (N, H, W, 3).
        labels: int32 (N,).
        metrics: of the full batches, (N // batch size,) each.

    Returns:
        The new state and the metrics of all steps, (steps,) each.
    """
    n = images.shape[0]
    full = n // spec.batch_size * spec.batch_size
    if full == n:
        return state, metrics
    index = epoch_order(state.key, state.step // steps_per_epoch(n, spec.batch_size), n)[full:]
    state, last = train_step(spec, hyper, n, state, images[index], labels[index])
    return state, jax.tree.map(jnp.append, metrics, last)


def train_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, StepMetrics]:
    """One pass over the training images: `train_steps` over all full batches, and `train_rest`."""
    full = images.shape[0] // spec.batch_size
    metrics = no_steps(spec, images.shape[0])
    if full:
        state, metrics = train_steps(spec, hyper, state, images, labels, metrics, 0, full)
    return train_rest(spec, hyper, state, images, labels, metrics)


def finish_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, data: TrainData, metrics: StepMetrics
) -> tuple[TrainState, StepMetrics, tuple[jax.Array, jax.Array]]:
    """What is left of an epoch after its full batches: `train_rest`, and `validate`'s result."""
    images, labels = data.train_images, data.train_labels
    state, metrics = train_rest(spec, hyper, state, images, labels, metrics)
    return state, metrics, validate(spec, state, data)


@in_precision
def predict_logits(spec: TrainSpec, params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
    """Logits in evaluation mode, (N, classes), of uint8 images (N, H, W, 3), in small batches."""
    n = images.shape[0]
    batch = min(CPU_EVAL_BATCH if jax.default_backend() == "cpu" else EVAL_BATCH, n)
    # The last batch is filled up with repeats, whose logits are dropped: in evaluation mode no
    # image influences another.
    index = jnp.minimum(jnp.arange(-(-n // batch) * batch), n - 1).reshape(-1, batch)

    def forward(rows: jax.Array) -> jax.Array:
        x = normalise(images[rows], spec.dtype)
        variables = {"params": params, "batch_stats": batch_stats}
        logits: jax.Array = spec.model.apply(variables, x, train=False)  # type: ignore[assignment]
        return logits

    logits = lax.map(forward, index)
    return logits.reshape(-1, logits.shape[-1])[:n]


def loss_and_accuracy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy in nats and accuracy (a fraction) of logits (N, classes)."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def validate(spec: TrainSpec, state: TrainState, data: TrainData) -> tuple[jax.Array, jax.Array]:
    """Validation loss and accuracy of a state."""
    logits = predict_logits(spec, state.params, state.batch_stats, data.val_images)
    return loss_and_accuracy(logits, data.val_labels)


def epoch_metrics(
    spec: TrainSpec,
    hyper: Hyperparams,
    first_step: jax.Array,
    steps: StepMetrics,
    validation: tuple[jax.Array, jax.Array],
    n_train: int,
) -> EpochMetrics:
    """Collect one row of the history.

    Args:
        first_step: the epoch's, which fixes its learning rate.
        steps: metrics of all steps of the epoch.
        validation: its loss and accuracy.
    """
    train_loss, train_accuracy = summarise_steps(steps, spec.batch_size, n_train)
    rate = jnp.asarray(learning_rate_schedule(spec, hyper, n_train)(first_step), jnp.float32)
    diverged = first_nonfinite_step(steps.loss)
    return EpochMetrics(train_loss, train_accuracy, *validation, rate, diverged)


def run_epoch(
    spec: TrainSpec, hyper: Hyperparams, state: TrainState, data: TrainData
) -> tuple[TrainState, EpochMetrics]:
    """Train for one epoch and validate: what `train` scans."""
    new_state, steps = train_epoch(spec, hyper, state, data.train_images, data.train_labels)
    validation = validate(spec, new_state, data)
    n_train = data.train_images.shape[0]
    return new_state, epoch_metrics(spec, hyper, state.step, steps, validation, n_train)
