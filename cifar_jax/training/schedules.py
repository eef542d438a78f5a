"""The course of the learning rate, as functions of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

Scalar = jax.Array | np.floating | float

# Of PyTorch's OneCycleLR: where the peak lies, the peak over the first rate, the first over the
# last.
PEAK_AT, FIRST_DIVISOR, LAST_DIVISOR = 0.3, 25.0, 1e4


def step_schedule(learning_rate: Scalar, decay_factor: float, decay_steps: int) -> optax.Schedule:
    """Learning rate as a function of the step: times `decay_factor` every `decay_steps` steps."""

    def schedule(step: jax.Array) -> jax.Array:
        # A whole division: in floating point, as `optax.exponential_decay` does it, the compiled
        # quotient can round to just below a whole number, and the rate drops a step late.
        drops = jnp.asarray(step) // decay_steps
        return learning_rate * jnp.asarray(decay_factor, float) ** drops

    return schedule


def multistep_schedule(
    learning_rate: Scalar, decay_factor: float, boundaries: tuple[int, ...]
) -> optax.Schedule:
    """Times `decay_factor` from each of these steps on; PyTorch's MultiStepLR."""

    def schedule(step: jax.Array) -> jax.Array:
        drops = jnp.sum(jnp.asarray(step) >= jnp.asarray(boundaries, jnp.int32))
        return learning_rate * jnp.asarray(decay_factor, float) ** drops

    return schedule


def constant_schedule(learning_rate: Scalar) -> optax.Schedule:
    """The same rate at every step."""
    return lambda step: jnp.asarray(learning_rate)


def cosine_schedule(learning_rate: Scalar, steps: int, final_fraction: float) -> optax.Schedule:
    """Half a cosine from `learning_rate` at step 0 to `final_fraction` of it at step `steps`.

    Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5, without restarts; PyTorch's
    CosineAnnealingLR with T_max = `steps`. The last step of a training is `steps` - 1.
    """

    def schedule(step: jax.Array) -> jax.Array:
        share = (1 + jnp.cos(jnp.pi * (jnp.asarray(step) / steps))) / 2
        return learning_rate * (final_fraction + (1 - final_fraction) * share)

    return schedule


def one_cycle_schedule(learning_rate: Scalar, steps: int) -> optax.Schedule:
    """Up to `learning_rate` and down to almost nothing, each half a cosine.

    Smith & Topin 2018, arXiv 1708.07120; the rates are those of PyTorch's OneCycleLR with its
    defaults. It starts at a 25th of the peak, peaks after 30 % of the steps and ends, at step
    `steps` - 1, at the first rate over 10,000. The momentum stays as it is
    (`cycle_momentum=False`).
    """
    first = 1 / FIRST_DIVISOR
    last = first / LAST_DIVISOR
    peak = PEAK_AT * steps - 1

    def between(start: float, end: float, progress: jax.Array) -> jax.Array:
        return end + (start - end) * (1 + jnp.cos(jnp.pi * progress)) / 2

    def schedule(step: jax.Array) -> jax.Array:
        at = jnp.asarray(step)
        up = between(first, 1.0, at / peak)
        down = between(1.0, last, (at - peak) / (steps - 1 - peak))
        return learning_rate * jnp.where(at <= peak, up, down)

    return schedule


def delayed(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """`schedule`, begun after so many steps; until then it stands at its first rate."""
    if steps == 0:
        return schedule
    return lambda step: schedule(jnp.maximum(jnp.asarray(step) - steps, 0))


def warmed_up(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """`schedule` times 1/steps at the first step, 2/steps at the next, and 1 from step `steps` - 1.

    The gradual warm-up of Goyal et al. 2017, arXiv 1706.02677, section 2.2.
    """
    if steps == 0:
        return schedule

    def warm(step: jax.Array) -> jax.Array:
        done = jnp.asarray(step) + 1
        share = jnp.where(done < steps, done / steps, 1.0)
        rate: jax.Array = share * schedule(step)
        return rate

    return warm
