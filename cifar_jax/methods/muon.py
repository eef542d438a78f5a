"""The optimiser Muon."""

from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax import Array

from cifar_jax.core.optim import Hyper


@dataclass(frozen=True)
class Muon:
    """Muon for the kernels of hidden layers, AdamW for all other parameters.

    Jordan et al. 2024, kellerjordan.github.io/posts/muon. The momentum of a kernel is a matrix of
    inputs by outputs. Five Newton-Schulz steps make it nearly orthogonal. The update is that
    matrix times sqrt(max(1, outputs / inputs)). optax corrects the bias of momentum and gradient
    before it adds them; PyTorch's Muon does not. About 20 steps later the two agree.

    Attributes:
        num_classes: outputs of the last layer, whose kernel AdamW trains.
        nesterov: Nesterov's momentum in Muon.
        adamw_share: AdamW's learning rate over Muon's: 0.0003 to 0.02, as Jordan recommends.
    """

    num_classes: int | None = None
    nesterov: bool = True
    adamw_share: float = 0.015

    def _label(self, kernel: Array) -> str:
        last = kernel.ndim == 2 and kernel.shape[-1] == self.num_classes
        return "muon" if kernel.ndim >= 2 and not last else "adamw"

    def __call__(self, hyper: Hyper, schedule: optax.Schedule) -> optax.GradientTransformation:
        decay = hyper.weight_decay
        hidden = optax.contrib.muon(
            schedule, beta=hyper.momentum, weight_decay=decay, nesterov=self.nesterov
        )
        others = optax.adamw(lambda step: self.adamw_share * schedule(step), weight_decay=decay)
        return optax.partition(
            {"muon": _as_matrices(hidden), "adamw": others},
            lambda params: jax.tree.map(self._label, params),
        )


def _as_matrices(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `inner` to (3, 3, C, D) arrays as (9 * C, D), as optax does itself from 0.2.6 on."""

    def flat(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), tree)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, state = inner.update(flat(updates), state, None if params is None else flat(params))
        return jax.tree.map(lambda x, like: x.reshape(like.shape), new, updates), state

    return optax.GradientTransformation(lambda params: inner.init(flat(params)), update)
