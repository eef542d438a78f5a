"""Ghost Batch Normalization: each of several equal parts of a batch has its own statistics.

If as many devices divide each batch, no device needs the statistics of another.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import Initializer, ones, zeros
from jax import Array, lax

from cifar_jax.core.norms import EPSILON, wide


def equal_parts(n: int, most: int) -> int:
    """Return the largest number of equal parts of `n` images, at most `most`.

    A part has at least two images, because a single one may have no variance.
    """
    return max((k for k in range(1, most + 1) if n % k == 0 and n >= 2 * k), default=1)


class GhostBatchNorm(nn.Module):
    """Ghost Batch Normalization (Hoffer et al. 2017, arXiv 1705.08741, algorithm 1).

    In training it equals PyTorch's BatchNorm called with one part of the batch after the other. So
    a step moves the running averages once for each part, and the last part has the largest weight.
    The parts are neighbouring images. A batch that cannot be divided so has fewer parts, see
    `equal_parts`. Parameters and statistics have the names and shapes of `BatchNorm`.
    """

    parts: int
    momentum: float = 0.9  # weight of the old running value at each part
    scale_init: Initializer = ones

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalise each channel of x, float (N, ..., C); the result has its shape and dtype.

        Training uses the statistics of each part, and updates the running ones. Evaluation uses the
        running ones.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            factor = scale * lax.rsqrt(running_var.value + EPSILON)
            return ((wide(x) - running_mean.value) * factor + bias).astype(x.dtype)
        parts = equal_parts(len(x), self.parts)
        y = wide(x).reshape(parts, -1, *shape)
        n = y.shape[1]
        mean = jnp.mean(y, 1, keepdims=True)
        var = jnp.mean(jnp.square(y - mean), 1, keepdims=True)
        if not self.is_initializing():
            kept = [self.momentum ** (parts - 1 - part) for part in range(parts)]
            weights = (1 - self.momentum) * jnp.array(kept, y.dtype)[:, None]
            for running, values in ((running_mean, mean), (running_var, var * (n / (n - 1)))):
                old = self.momentum**parts * running.value
                running.value = old + jnp.sum(weights * values[:, 0], 0)
        y = (y - mean) * (scale * lax.rsqrt(var + EPSILON)) + bias
        return y.reshape(x.shape).astype(x.dtype)


@dataclass(frozen=True)
class Ghost:
    """A norm of `CNN` and `ResNet`: `GhostBatchNorm` with so many parts."""

    parts: int

    def __call__(self, momentum: float, scale_init: Initializer, name: str) -> GhostBatchNorm:
        return GhostBatchNorm(self.parts, momentum, scale_init, name=name)
