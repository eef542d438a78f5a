"""The protocol's optimiser and schedule.

An optimiser takes (hyper, schedule) and returns an `optax.GradientTransformation`. A schedule
takes (learning rate, steps per epoch, total steps) and returns an `optax.Schedule`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax

Scalar = Any  # a Python number, or a traced float ()


@flax.struct.dataclass
class Hyper:
    """Hyper-parameters that need no new compilation: traced scalars. A subclass may add others.

    Attributes:
        learning_rate: float (), initial, or the peak where the schedule starts lower.
        momentum: float (); without dampening. Adam's beta1.
        weight_decay: float (); coupled in SGD, decoupled in AdamW and Muon.
    """

    learning_rate: Scalar = 0.01
    momentum: Scalar = 0.9
    weight_decay: Scalar = 5e-4

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        flax.struct.dataclass(cls)


Optimizer = Callable[[Hyper, optax.Schedule], optax.GradientTransformation]
Schedule = Callable[[Scalar, int, int], optax.Schedule]


def sgd(hyper: Hyper, schedule: optax.Schedule) -> optax.GradientTransformation:
    """PyTorch's `SGD(momentum, weight_decay)`, for every parameter p, biases and norms included.

    g <- g + weight_decay * p;  buffer <- momentum * buffer + g;  p <- p - learning_rate * buffer.
    """
    decay = optax.add_decayed_weights(hyper.weight_decay)
    return optax.chain(decay, optax.sgd(schedule, momentum=hyper.momentum))


@dataclass(frozen=True)
class StepDecay:
    """The learning rate times `factor` every `every` epochs; PyTorch's `StepLR`."""

    every: int = 10
    factor: float = 0.1

    def __call__(self, rate: Scalar, steps_per_epoch: int, steps: int) -> optax.Schedule:
        # `optax.exponential_decay` divides in floating point, so it can drop a step late.
        period = self.every * steps_per_epoch
        return lambda step: rate * jnp.asarray(self.factor, float) ** (step // period)
