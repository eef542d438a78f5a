"""What training carries from step to step, and how it begins."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from cifar_jax.training.layerwise import Rates, layerwise
from cifar_jax.training.optimizer import Hyperparams, sgd, step_schedule

# Purposes of the random numbers of a run. Each key is folded from the run's key, a purpose and
# an epoch or step, so that no draw depends on how many were made before: a resumed run and a
# streamed one see the same numbers.
INIT, ORDER, AUGMENT, DROPOUT = range(4)


@dataclass(frozen=True)
class TrainSpec:
    """The static half of an experiment: everything that decides shapes and programs.

    Attributes:
        model: the Flax module.
        batch_size: images a step.
        epochs: passes over the training images.
        decay_every: epochs between two drops of the learning rate.
        decay_factor: factor of each drop.
        augment: random crop and flip of the training images.
        dtype: of the network's inputs and activations.
        rates: of layers that learn at another rate or not at all.
    """

    model: nn.Module
    batch_size: int = 128
    epochs: int = 30
    decay_every: int = 10
    decay_factor: float = 0.1
    augment: bool = True
    dtype: str = "float32"
    rates: Rates = ()


class TrainData(NamedTuple):
    """The images of a run, resident on the device.

    Attributes:
        train_images: uint8 (N, H, W, 3).
        train_labels: int32 (N,).
        val_images: uint8 (M, H, W, 3).
        val_labels: int32 (M,).
    """

    train_images: jax.Array
    train_labels: jax.Array
    val_images: jax.Array
    val_labels: jax.Array


@flax.struct.dataclass
class TrainState:
    """Everything that changes during training; a pytree.

    Attributes:
        step: int32 (), steps taken.
        params: trainable parameters.
        batch_stats: running statistics; an empty dict where there is no BatchNorm.
        opt_state: optax's, momentum buffers included.
        key: the run's key; never split, only folded.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Steps of one pass over n images, the last partial batch included."""
    return -(-n // batch_size)


def draw_key(key: jax.Array, purpose: int, index: jax.Array | int) -> jax.Array:
    """Key of one draw: of a purpose (INIT, ORDER, ...) at an epoch or step."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), index)


def learning_rate_schedule(spec: TrainSpec, hyper: Hyperparams, n_train: int) -> optax.Schedule:
    """The step schedule of a run on `n_train` images: a function of the step."""
    decay_steps = spec.decay_every * steps_per_epoch(n_train, spec.batch_size)
    return step_schedule(hyper.learning_rate, spec.decay_factor, decay_steps)


def optimizer(spec: TrainSpec, hyper: Hyperparams, n_train: int) -> optax.GradientTransformation:
    """The optimiser of a run on `n_train` images."""
    return layerwise(sgd(hyper, learning_rate_schedule(spec, hyper, n_train)), spec.rates)


def init_state(spec: TrainSpec, key: jax.Array, image_shape: tuple[int, ...]) -> TrainState:
    """Initial state; the layers that two models share by name get the same values.

    Args:
        key: of the run, for example `jax.random.key(42)`.
        image_shape: (H, W, C).
    """
    example = jnp.zeros((1, *image_shape), spec.dtype)
    variables = spec.model.init(draw_key(key, INIT, 0), example, train=False)
    params = variables["params"]
    # The optimiser's first state depends neither on hyper-parameters nor on the schedule.
    opt_state = layerwise(sgd(Hyperparams(), lambda step: 0.0), spec.rates).init(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=opt_state,
        key=key,
    )
