"""Normalisation layers with PyTorch's conventions. Only Batch Normalization keeps statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-5


def wide(x: jax.Array) -> jax.Array:
    """Return x in float32, or unchanged if its dtype is wider.

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
        """Normalise each channel.

        Args:
            x: float (..., C).
            train: use the statistics of the batch, and update the running ones.

        Returns:
            The shape and dtype of x.
        """
        channels = x.shape[-1]
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            factor = scale * lax.rsqrt(var.value + EPSILON)
            return ((wide(x) - mean.value) * factor + bias).astype(x.dtype)
        axes = tuple(range(x.ndim - 1))
        batch_mean = jnp.mean(wide(x), axes)
        centred = wide(x) - batch_mean
        batch_var = jnp.mean(jnp.square(centred), axes)
        if not self.is_initializing():
            count = x.size // channels
            unbiased = batch_var * (count / (count - 1))
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * unbiased
        return (centred * (scale * lax.rsqrt(batch_var + EPSILON)) + bias).astype(x.dtype)


class GroupNorm(nn.Module):
    """Group Normalization (Wu & He 2018, arXiv 1803.08494, equations 1 to 7).

    Each image is normalised by its own mean and biased variance, group by group of neighbouring
    channels, as in PyTorch.

    Attributes:
        groups: number of groups; None for one group a channel.
        zero_scale: the scale starts at 0 instead of 1.
    """

    groups: int | None
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise each group of each image.

        Args:
            x: float (N, ..., C).
            train: has no effect.

        Returns:
            The shape and dtype of x.

        Raises:
            ValueError: if the groups do not divide C.
        """
        channels = x.shape[-1]
        groups = channels if self.groups is None else self.groups
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be divided into {groups} groups")
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        axes = tuple(range(1, x.ndim - 1))

        def mean_of_group(y: jax.Array) -> jax.Array:
            # Positions first: the channels stay the minor axis of the large sum.
            means = jnp.mean(y, axes).reshape(len(y), groups, -1).mean(-1, keepdims=True)
            repeated = jnp.broadcast_to(means, (len(y), groups, channels // groups))
            return jnp.expand_dims(repeated.reshape(len(y), channels), axes)

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

    Raises:
        ValueError: if the norm is unknown.
    """
    if norm == "batch":
        return BatchNorm(momentum, zero_scale, name=name)
    number = {"layer": 1, "instance": None, "group": groups}
    if norm not in number:
        raise ValueError(f"unknown norm {norm!r}; allowed: batch, {', '.join(number)}")
    return GroupNorm(number[norm], zero_scale, name=name)
