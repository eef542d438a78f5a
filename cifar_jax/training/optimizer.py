"""SGD with momentum, coupled weight decay and the step schedule, as optax transformations."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

Scalar = jax.Array | np.floating | float


@flax.struct.dataclass
class Hyperparams:
    """What a sweep varies without a new program: traced scalars, or arrays under `jax.vmap`.

    Attributes:
        learning_rate: float (), initial.
        momentum: float (), 0.9 in the protocol; no dampening, not Nesterov's.
        weight_decay: float (), coupled.
    """

    learning_rate: Scalar = 0.01
    momentum: Scalar = 0.9
    weight_decay: Scalar = 5e-4


def step_schedule(learning_rate: Scalar, decay_factor: float, decay_steps: int) -> optax.Schedule:
    """Learning rate as a function of the step: times `decay_factor` every `decay_steps` steps."""

    def schedule(step: jax.Array) -> jax.Array:
        # A whole division: in floating point, as `optax.exponential_decay` does it, the compiled
        # quotient can round to just below a whole number, and the rate drops a step late.
        drops = jnp.asarray(step) // decay_steps
        return learning_rate * jnp.asarray(decay_factor, float) ** drops

    return schedule


def sgd(hyper: Hyperparams, schedule: optax.Schedule) -> optax.GradientTransformation:
    """PyTorch's `SGD(momentum, weight_decay)`.

    g <- g + weight_decay * p;  buffer <- momentum * buffer + g;  p <- p - learning_rate * buffer,
    for every parameter p, biases and norm parameters included.
    """
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay),
        optax.sgd(schedule, momentum=hyper.momentum),
    )
