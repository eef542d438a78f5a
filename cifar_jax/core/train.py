"""Training as pure functions: an experiment, its state, one step, one epoch, all epochs.

Every random number comes from the run's key, folded with a purpose and a step or epoch. A draw
does not depend on earlier draws, so resumed and streamed training see the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax

from cifar_jax.core.inputs import Inputs, call
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper, Optimizer, Scalar, Schedule, StepDecay, sgd

INIT, ORDER, INPUTS, DROPOUT = range(4)  # purposes of random numbers


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Return the mean softmax cross-entropy of logits, float (B, classes), in nats, float ().

    Targets are labels, int32 (B,), or soft labels, float (B, classes): the share of each class.
    """
    if targets.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    return optax.softmax_cross_entropy(logits, targets).mean()


def count_correct(logits: Array, targets: Array) -> Array:
    """Return the number of correct predictions, float32 (). Soft labels count by their share."""
    predicted = jnp.argmax(logits, axis=-1)
    if targets.ndim == 1:
        return jnp.sum(predicted == targets, dtype=jnp.float32)
    return jnp.sum(jnp.take_along_axis(targets, predicted[:, None], 1), dtype=jnp.float32)


@dataclass(frozen=True)
class Experiment:
    """Everything static: fixed when training is compiled. The defaults are the course report's.

    Attributes:
        model: Flax module; `model(x, train=...)` returns logits (B, classes).
        inputs: from uint8 images to x. Also a function (key, images) -> x, whose key is None in
            evaluation.
        loss: `loss(logits, targets)` returns float (); see `cross_entropy`. A loss with a parameter
            `hyper` gets the hyper-parameters too.
        optimizer, schedule: see `optim.py`.
        evaluated: from a state to the parameters and running statistics to evaluate.
        batch_size: images per step.
        epochs: passes over the training images.
        precision: of float32 products: "highest" for full float32, "tensorfloat32", or None for
            the device's default.
        eval_batch_size: images in a forward pass of evaluation; changes only speed and memory.
        init_images: the first training images, which `model.init` sees; 0 for a single black one.
    """

    model: nn.Module = CNN()
    inputs: Inputs = Inputs()
    loss: Callable[..., Array] = cross_entropy
    optimizer: Optimizer = sgd
    schedule: Schedule = StepDecay()
    evaluated: Callable[["TrainState"], tuple[Any, Any]] = attrgetter("params", "batch_stats")
    batch_size: int = 128
    epochs: int = 30
    precision: str | None = "highest"
    eval_batch_size: int = 250
    init_images: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Inputs):
            object.__setattr__(self, "inputs", Inputs(function=self.inputs))

    def steps_per_epoch(self, n_train: int) -> int:
        """Return the number of steps of an epoch, counting a last partial batch."""
        return -(-n_train // self.batch_size)

    def learning_rate(self, hyper: Hyper, n_train: int) -> optax.Schedule:
        """Return the learning rate as a function of the step."""
        steps = self.steps_per_epoch(n_train)
        return self.schedule(hyper.learning_rate, steps, steps * self.epochs)


class Data(NamedTuple):
    """Images, uint8 (N, H, W, C), and labels, int32 (N,), on the device."""

    train_images: Array
    train_labels: Array
    val_images: Array
    val_labels: Array


@struct.dataclass
class TrainState:
    """Everything that changes during training. Sums are over the steps of the current epoch."""

    step: Array  # int32 (), number of steps taken
    params: Any  # trainable parameters
    batch_stats: Any  # running statistics, or an empty dict
    opt_state: optax.OptState  # optax's, with the momentum
    key: Array  # of the run; never changes
    loss_sum: Array  # float32 (), of loss * (images in the batch / batch_size)
    correct_sum: Array  # float32 (), of `count_correct`
    bad_step: Array  # int32 (), first step of the epoch, from 0, with a non-finite loss; or -1


class Metrics(NamedTuple):
    """One epoch of a run's history. Fields are float32 () but `bad_step`."""

    train_loss: Array  # mean over the epoch's images, in train mode, each before its update
    train_accuracy: Array  # over the same forward passes
    val_loss: Array  # mean `cross_entropy` after the epoch, in evaluation mode
    val_accuracy: Array  # after the epoch, in evaluation mode
    learning_rate: Array  # at the epoch's first step
    bad_step: Array  # int32 (), see `TrainState`


def draw_key(key: Array, purpose: int, index: Array | int) -> Array:
    """Return the key of one draw: of a purpose (INIT, ORDER, ...) at a step or epoch."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), index)


def init_state(
    experiment: Experiment, key: Array, image_shape: tuple[int, ...], images: Array | None = None
) -> TrainState:
    """Return the state of a run before its first step.

    `image_shape` is (H, W, C). `images`, uint8 (B, H, W, C), are those of `init_images`.
    """
    if images is None or not len(images):
        images = jnp.zeros((1, *image_shape), jnp.uint8)
    example = experiment.inputs.evaluate(images)
    variables = experiment.model.init(draw_key(key, INIT, 0), example, train=False)
    # The optimiser's first state depends neither on hyper-parameters nor on the schedule.
    optimizer = experiment.optimizer(Hyper(), lambda step: jnp.zeros(()))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        key=key,
        loss_sum=jnp.zeros(()),
        correct_sum=jnp.zeros(()),
        bad_step=jnp.int32(-1),
    )


def step_loss(
    params: Any, experiment: Experiment, hyper: Hyper, n: int, state: TrainState, *batch: Array
) -> tuple[Array, tuple[Array, Any]]:
    """Return the loss of a batch, uint8 (B, H, W, C) and int32 (B,), that a step differentiates.

    An epoch has `n` training images. Also return the number of correct predictions, float32 (),
    and the new running statistics.
    """
    key = draw_key(state.key, INPUTS, state.step)
    epoch = state.step // experiment.steps_per_epoch(n)
    images, labels = batch
    x, targets = experiment.inputs.train(key, images, labels, epoch)
    logits, updated = experiment.model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        x,
        train=True,
        rngs={"dropout": draw_key(state.key, DROPOUT, state.step)},
        mutable=["batch_stats"],
    )
    loss = call(experiment.loss, logits, targets, hyper=hyper)
    return loss, (count_correct(logits, targets), updated.get("batch_stats", {}))


def train_step(
    experiment: Experiment, hyper: Hyper, n: int, state: TrainState, images: Array, labels: Array
) -> TrainState:
    """Train on one batch: augment, differentiate, update. An epoch has `n` training images."""
    with jax.default_matmul_precision(experiment.precision):
        gradient = jax.value_and_grad(step_loss, has_aux=True)
        found = gradient(state.params, experiment, hyper, n, state, images, labels)
    (loss, (correct, batch_stats)), grads = found

    optimizer = experiment.optimizer(hyper, experiment.learning_rate(hyper, n))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)

    is_first_bad = (state.bad_step < 0) & ~jnp.isfinite(loss)
    step_of_epoch = state.step % experiment.steps_per_epoch(n)
    return replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        loss_sum=state.loss_sum + loss * (len(labels) / experiment.batch_size),
        correct_sum=state.correct_sum + correct,
        bad_step=jnp.where(is_first_bad, step_of_epoch, state.bad_step),
    )


def epoch_order(key: Array, epoch: Array | int, n: int) -> Array:
    """Return the order of an epoch's training images, a permutation: int32 (n,)."""
    return jax.random.permutation(draw_key(key, ORDER, epoch), n)


def train_steps(
    experiment: Experiment, hyper: Hyper, data: Data, state: TrainState, start: Scalar, stop: Scalar
) -> TrainState:
    """Train on the full batches `start` to `stop - 1` of an epoch, in one loop.

    `state` is after the first `start` batches. One compiled program takes any `start` and `stop`.
    """
    n, size = len(data.train_labels), experiment.batch_size
    if n < size:  # There is no full batch.
        return state
    order = epoch_order(state.key, state.step // experiment.steps_per_epoch(n), n)

    def body(i: Array, state: TrainState) -> TrainState:
        rows = lax.dynamic_slice_in_dim(order, i * size, size)
        images, labels = data.train_images[rows], data.train_labels[rows]
        return train_step(experiment, hyper, n, state, images, labels)

    return lax.fori_loop(start, stop, body, state)


def train_last(experiment: Experiment, hyper: Hyper, data: Data, state: TrainState) -> TrainState:
    """Train on an epoch's last partial batch. Padding would change BatchNorm's statistics."""
    n = len(data.train_labels)
    full = n - n % experiment.batch_size
    if full == n:
        return state
    rows = epoch_order(state.key, state.step // experiment.steps_per_epoch(n), n)[full:]
    return train_step(experiment, hyper, n, state, data.train_images[rows], data.train_labels[rows])


def end_epoch(
    experiment: Experiment, hyper: Hyper, n: int, state: TrainState, logits: Array, labels: Array
) -> tuple[TrainState, Metrics]:
    """Summarise an epoch of `n` training images after its last step, and reset the sums.

    `logits`, float (N, classes), and `labels`, int32 (N,), are those of the validation images.
    """
    first_step = state.step - experiment.steps_per_epoch(n)
    metrics = Metrics(
        train_loss=state.loss_sum * (experiment.batch_size / n),
        train_accuracy=state.correct_sum / n,
        val_loss=cross_entropy(logits, labels),
        val_accuracy=count_correct(logits, labels) / len(labels),
        learning_rate=jnp.asarray(experiment.learning_rate(hyper, n)(first_step)),
        bad_step=state.bad_step,
    )
    zero = jnp.zeros(())
    return replace(state, loss_sum=zero, correct_sum=zero, bad_step=jnp.int32(-1)), metrics


def predict(experiment: Experiment, state: TrainState, images: Array) -> Array:
    """Return logits in evaluation mode, float (N, classes), of uint8 images (N, H, W, C)."""
    n, size = len(images), min(experiment.eval_batch_size, len(images))
    # Repeats of the last image fill the last batch. No image changes another's logits.
    batches = jnp.minimum(jnp.arange(-(-n // size) * size), n - 1).reshape(-1, size)
    params, batch_stats = experiment.evaluated(state)
    variables = {"params": params, "batch_stats": batch_stats}

    def forward(rows: Array) -> Any:
        x = experiment.inputs.evaluate(images[rows])
        return experiment.model.apply(variables, x, train=False)

    with jax.default_matmul_precision(experiment.precision):
        logits = lax.map(forward, batches)
    return logits.reshape(-1, logits.shape[-1])[:n]


def run_epoch(
    experiment: Experiment, hyper: Hyper, data: Data, state: TrainState
) -> tuple[TrainState, Metrics]:
    """Train for one epoch, from its first step on, and validate."""
    n = len(data.train_labels)
    state = train_steps(experiment, hyper, data, state, 0, n // experiment.batch_size)
    state = train_last(experiment, hyper, data, state)
    logits = predict(experiment, state, data.val_images)
    return end_epoch(experiment, hyper, n, state, logits, data.val_labels)


def train(
    experiment: Experiment, hyper: Hyper, data: Data, key: Array
) -> tuple[TrainState, Metrics]:
    """Train all epochs. Return the final state and the history, whose fields are (epochs,).

    `experiment` is static. `jax.vmap` over `hyper` and `key` trains settings and seeds at once.
    """
    images = data.train_images
    state = init_state(experiment, key, images.shape[1:], images[: experiment.init_images])
    epoch = partial(run_epoch, experiment, hyper, data)
    return lax.scan(lambda state, _: epoch(state), state, length=experiment.epochs)
