"""Normalisation layers with PyTorch's conventions. Only Batch Normalization keeps statistics."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import Initializer, ones, zeros
from jax import Array, lax

EPSILON = 1e-5
Norm = str | Callable[..., Callable[..., Array]]  # see `norm_layer`


def wide(x: Array) -> Array:
    """Cast x to float32, unless its dtype is wider (Micikevicius et al. 2018, arXiv 1710.03740)."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class BatchNorm(nn.Module):
    """Batch Normalization (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2).

    The batch is normalised by its biased variance. The running average takes the unbiased one,
    n / (n - 1) times as large, as in PyTorch; `flax.linen.BatchNorm` takes the biased one.
    """

    momentum: float = 0.9  # weight of the old running value, 1 - PyTorch's `momentum`
    scale_init: Initializer = ones

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalise each channel of x, float (..., C); the result has its shape and dtype.

        Training uses the batch's statistics, of at least 2 values per channel, and updates the
        running ones. Evaluation uses the running ones.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value, running_var.value
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(wide(x), axes)
            var = jnp.mean(jnp.square(wide(x) - mean), axes)
            if not self.is_initializing():
                n, old = x.size // x.shape[-1], self.momentum
                running_mean.value = old * running_mean.value + (1 - old) * mean
                running_var.value = old * running_var.value + (1 - old) * var * (n / (n - 1))
        return ((wide(x) - mean) * (scale * lax.rsqrt(var + EPSILON)) + bias).astype(x.dtype)


def norm_layer(
    norm: Norm, name: str, groups: int = 8, momentum: float = 0.9, scale_init: Initializer = ones
) -> Callable[..., Array]:
    """Return the norm layer `name`, a function of (x, train=...) like `BatchNorm.__call__`.

    `norm` is "batch", or a function of (momentum, scale_init, name) that makes the layer. Or it is
    a Group Normalization (Wu & He 2018, arXiv 1803.08494, equations 1 to 7): "layer" has one group,
    "instance" one per channel, and "group" has `groups` groups of neighbouring channels. These
    three are the same in training and evaluation. All have a scale and a bias per channel.
    """
    if callable(norm := BatchNorm if norm == "batch" else norm):
        return norm(momentum=momentum, scale_init=scale_init, name=name)
    number, size = {"layer": (1, None), "instance": (None, 1), "group": (groups, None)}[norm]
    # The fast variance, mean(x^2) - mean(x)^2, loses digits.
    layer = nn.GroupNorm(
        number, size, EPSILON, scale_init=scale_init, use_fast_variance=False, name=name
    )
    return lambda x, train: layer(x).astype(x.dtype)
