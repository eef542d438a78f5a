"""Other learning rate schedules than the protocol's. See `optim.py` for how to call them."""

from collections import Counter
from dataclasses import dataclass

import jax.numpy as jnp
import optax

from cifar_jax.core.optim import Scalar, Schedule


def constant(rate: Scalar, steps_per_epoch: int, steps: int) -> optax.Schedule:
    """Keep the learning rate."""
    return optax.constant_schedule(rate)


@dataclass(frozen=True)
class MultiStepDecay:
    """The learning rate times `factor` at each milestone, in epochs; PyTorch's `MultiStepLR`."""

    milestones: tuple[float, ...]
    factor: float = 0.1

    def __call__(self, rate: Scalar, steps_per_epoch: int, steps: int) -> optax.Schedule:
        drops = Counter(round(at * steps_per_epoch) for at in self.milestones)
        factors = {step: self.factor**times for step, times in drops.items()}
        return optax.piecewise_constant_schedule(rate, factors)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the learning rate down to `final_fraction` times the learning rate.

    Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5, without restarts; PyTorch's
    `CosineAnnealingLR` over all steps.
    """

    final_fraction: float = 0.0

    def __call__(self, rate: Scalar, steps_per_epoch: int, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(rate, steps, self.final_fraction)


@dataclass(frozen=True)
class OneCycle:
    """Rise to the learning rate and fall to almost zero, each along half a cosine.

    Smith & Topin 2018, arXiv 1708.07120; PyTorch's `OneCycleLR(cycle_momentum=False)`.

    Attributes:
        peak_at: share of the steps before the peak.
        start: first rate, as a fraction of the peak.
        end: last rate, likewise.
    """

    peak_at: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 250_000

    def __call__(self, rate: Scalar, steps_per_epoch: int, steps: int) -> optax.Schedule:
        last, peak = steps - 1, self.peak_at * steps - 1
        # Up is down, counted backwards. Of very few steps, the first is past the peak.
        up = optax.cosine_decay_schedule(rate, max(peak, 1e-6), self.start)
        down = optax.cosine_decay_schedule(rate, last - peak, self.end)
        return lambda step: jnp.where(step <= peak, up(peak - step), down(step - peak))


@dataclass(frozen=True)
class Warmup:
    """Linear warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2.2).

    Step i of its n steps, counted from 1, has i / n of the schedule's rate.

    Attributes:
        epochs: length of the warm-up.
        schedule: of the learning rate without warm-up.
        delay: start the schedule after the warm-up and fit it to the remaining steps. Otherwise
            it starts at the first step of training.
    """

    epochs: float
    schedule: Schedule
    delay: bool = False

    def __call__(self, rate: Scalar, steps_per_epoch: int, steps: int) -> optax.Schedule:
        length = round(self.epochs * steps_per_epoch)
        if not length:
            return self.schedule(rate, steps_per_epoch, steps)
        shift = length if self.delay else 0
        later = self.schedule(rate, steps_per_epoch, max(steps - shift, 1))

        share = optax.linear_schedule(1 / length, 1.0, length - 1)
        return lambda step: share(step) * later(jnp.maximum(step - shift, 0))
