"""What training carries from step to step, and how it begins."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from cifar_jax.training.layerwise import Rates, layerwise
from cifar_jax.training.optimizer import Hyperparams, Make, make_optimizer
from cifar_jax.training.schedules import (
    constant_schedule,
    cosine_schedule,
    delayed,
    multistep_schedule,
    one_cycle_schedule,
    step_schedule,
    warmed_up,
)

# Purposes of the random numbers of a run. Each key is folded from the run's key, a purpose and
# an epoch or step, so that no draw depends on how many were made before: a resumed run and a
# streamed one see the same numbers. New ones go to the end: the numbers are part of a run.
INIT, ORDER, AUGMENT, DROPOUT, CUTOUT, ERASING, MIXUP = range(7)


@dataclass(frozen=True)
class Regularisers:
    """What makes training harder besides dropout; all off by default, and free then.

    Attributes:
        label_smoothing: share of each label that is spread over all classes.
        cutout: side of the square in pixels.
        random_erasing: probability of a box.
        erasing_area: smallest and largest share of the image that a box has.
        erasing_ratio: smallest height over width of a box; the largest is its inverse.
        mixup: alpha of the weight's Beta distribution.
    """

    label_smoothing: float = 0.0
    cutout: int = 0
    random_erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.4)
    erasing_ratio: float = 0.3
    mixup: float = 0.0


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
        dtype: of the network's inputs and activations; parameters and logits are float32 or wider.
        tf32: whether products of float32 may round their factors; see `training.precision`.
        optimizer: "sgd", "nesterov", "adamw" or "muon".
        schedule: "step", "constant", "multistep", "cosine" or "onecycle".
        milestones: epochs, increasing, at which "multistep" drops the rate.
        final_fraction: where "cosine" ends, as a fraction of the initial rate.
        warmup_epochs: length of a linear warm-up.
        regularisers: of the training images and labels.
        rates: of layers that learn at another rate or not at all.
    """

    model: nn.Module
    batch_size: int = 128
    epochs: int = 30
    decay_every: int = 10
    decay_factor: float = 0.1
    augment: bool = True
    dtype: str = "float32"
    tf32: bool = False
    optimizer: str = "sgd"
    schedule: str = "step"
    milestones: tuple[float, ...] = ()
    final_fraction: float = 0.0
    warmup_epochs: float = 0.0
    regularisers: Regularisers = Regularisers()
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
    """The learning rate of a run on `n_train` images: a function of the step.

    A warm-up is a factor of the rate. "step" and "multistep" count their epochs from the start of
    training; "cosine" and "onecycle" begin after the warm-up and fill what is left.
    """
    epoch = steps_per_epoch(n_train, spec.batch_size)
    warmup = round(spec.warmup_epochs * epoch)
    left = max(spec.epochs * epoch - warmup, 1)
    rate = hyper.learning_rate
    schedules = {
        "step": lambda: step_schedule(rate, spec.decay_factor, spec.decay_every * epoch),
        "constant": lambda: constant_schedule(rate),
        "multistep": lambda: multistep_schedule(
            rate, spec.decay_factor, tuple(round(at * epoch) for at in spec.milestones)
        ),
        "cosine": lambda: delayed(cosine_schedule(rate, left, spec.final_fraction), warmup),
        "onecycle": lambda: delayed(one_cycle_schedule(rate, left), warmup),
    }
    return warmed_up(schedules[spec.schedule](), warmup)


def _make(spec: TrainSpec) -> Make:
    return make_optimizer(spec.optimizer, getattr(spec.model, "num_classes", None))


def optimizer(spec: TrainSpec, hyper: Hyperparams, n_train: int) -> optax.GradientTransformation:
    """The optimiser of a run on `n_train` images."""
    base = _make(spec)(hyper, learning_rate_schedule(spec, hyper, n_train))
    return layerwise(base, spec.rates)


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
    base = _make(spec)(Hyperparams(), lambda step: jnp.zeros(()))
    opt_state = layerwise(base, spec.rates).init(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=opt_state,
        key=key,
    )
