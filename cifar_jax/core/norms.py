"""Normalisation layers with PyTorch's conventions. Only Batch Normalization keeps statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-5


def wide(x: jax.Array) -> jax.Array:
    """Return x in float32, or as it is if its dtype is wider.

    Statistics, the last layer and the loss are computed in it (Micikevicius et al. 2018,
    arXiv 1710.03740, section 3).
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class BatchNorm(nn.Module):
    """Batch Normalization (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2).

    The batch is normalised by its biased variance. The running average takes the unbiased one,
    n / (n - 1) times as large, as in PyTorch; `flax.linen.BatchNorm` takes the biased one.

    Attributes:
        momentum: weight of the old running value, 1 - PyTorch's `momentum`.
        zero_scale: the scale starts at 0 instead of 1.
    """

    momentum: float = 0.9
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise each channel of x, float (..., C); the result has its shape and dtype.

        In training it uses the statistics of the batch and updates the running ones.
        """
        shape = x.shape[-1:]
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
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


class GroupNorm(nn.Module):
    """Group Normalization (Wu & He 2018, arXiv 1803.08494, equations 1 to 7).

    Each image is normalised by its own mean and biased variance, group by group of neighbouring
    channels, as in PyTorch.

    Attributes:
        groups: number of groups, which divides the channels; None for one group a channel.
        zero_scale: the scale starts at 0 instead of 1.
    """

    groups: int | None
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise x, float (N, ..., C), in training and evaluation alike."""
        n, channels = x.shape[0], x.shape[-1]
        groups = self.groups or channels
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        axes = tuple(range(1, x.ndim - 1))

        def mean_of_group(y: jax.Array) -> jax.Array:
            # Positions first: the channels stay the minor axis of the large sum.
            means = jnp.mean(y, axes).reshape(n, groups, -1).mean(-1)
            return jnp.expand_dims(jnp.repeat(means, channels // groups, axis=-1), axes)

        centred = wide(x) - mean_of_group(wide(x))
        var = mean_of_group(jnp.square(centred))
        return (centred * (scale * lax.rsqrt(var + EPSILON)) + bias).astype(x.dtype)


def norm_layer(
    norm: str, name: str, *, groups: int = 8, momentum: float = 0.9, zero_scale: bool = False
) -> nn.Module:
    """Build a norm layer.

    Args:
        norm: "batch", "layer", "instance" or "group". "layer" takes its statistics over positions
            and channels of an image, and has an affine map a channel, as in Wu & He.
        name: of the sub-module.
        groups: of "group".
        momentum: of "batch".
        zero_scale: the scale starts at 0 instead of 1.
    """
    if norm == "batch":
        return BatchNorm(momentum, zero_scale, name=name)
    number = {"layer": 1, "instance": None, "group": groups}[norm]
    return GroupNorm(number, zero_scale, name=name)
