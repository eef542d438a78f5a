"""Normalisation layers. Statistics that outlive a step live in `batch_stats`, handed in and back;
only Batch Normalization has any.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jax import lax

from cifar_jax.models import layers
from cifar_jax.models.dtypes import wide


def _scale_init(zero: bool) -> Initializer:
    return nn.initializers.zeros if zero else nn.initializers.ones


class BatchNorm(nn.Module):
    """Batch Normalization (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2).

    As PyTorch's: the batch is normalised by its biased variance, the unbiased one (n / (n - 1))
    enters the running average. `flax.linen.BatchNorm` stores the biased one.

    Attributes:
        momentum: weight of the old running value; PyTorch calls 1 - momentum its momentum.
        epsilon: added to the variance.
        zero_scale: the scale starts at 0 instead of 1.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    zero_scale: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        shift: jax.Array | None = None,
        pool_axes: tuple[int, int] | None = None,
    ) -> jax.Array:
        """Normalise x + shift, x (..., C), over all axes but the last.

        Args:
            x: (..., C).
            train: normalise by the batch's statistics and update the running ones.
            shift: (C,), the bias of the layer before. It cancels but for the running mean, so
                that it is never added to the whole of x.
            pool_axes: follow by ReLU and maximum over these axes of size 2; see `pooling`.

        Returns:
            The shape of x, without `pool_axes`, and its dtype.
        """
        channels = x.shape[-1]
        scale = self.param("scale", _scale_init(self.zero_scale), (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        shift = jnp.zeros((), x.dtype) if shift is None else shift
        if not train:
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            y = (x * factor + (bias + (shift - mean.value) * factor)).astype(x.dtype)
            return y if pool_axes is None else layers.relu_max_pool_windows(y, pool_axes)
        if pool_axes is None:
            y, batch_mean, batch_var = layers.batch_norm(x, scale, bias, self.epsilon)
        else:
            y, batch_mean, batch_var = layers.batch_norm_relu_max_pool_windows(
                x, scale, bias, self.epsilon, pool_axes
            )
        if not self.is_initializing():
            count = x.size // channels
            unbiased = batch_var * (count / (count - 1))
            batch_mean = batch_mean + shift
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * unbiased
        return y


def _mean_of_groups(x: jax.Array, groups: int) -> jax.Array:
    """Mean over positions and the channels of a group: (N, ..., C) -> (N, C), repeated in it."""
    per_channel = jnp.mean(x, tuple(range(1, x.ndim - 1)))
    grouped = per_channel.reshape(x.shape[0], groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(x.shape[0], -1)


def group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, eps: float = 1e-5
) -> jax.Array:
    """Group Normalization (Wu & He 2018, arXiv 1803.08494, equations 1 to 7).

    Each image is normalised by its own mean and biased variance, group by group of neighbouring
    channels, as PyTorch's `GroupNorm`.

    Args:
        x: (N, ..., C).
        scale: (C,).
        bias: (C,).
        groups: into how many the channels are divided; divides C.
        eps: added to the variance.

    Returns:
        The shape of x, in float32 or x's wider dtype.
    """
    x = wide(x)
    # Positions first, whole channels: the minor axis stays long enough for the vector units.
    axes = tuple(range(1, x.ndim - 1))
    centred = x - jnp.expand_dims(_mean_of_groups(x, groups), axes)
    var = _mean_of_groups(jnp.square(centred), groups)
    return centred * jnp.expand_dims(scale * lax.rsqrt(var + eps), axes) + bias


class GroupNorm(nn.Module):
    """Group Normalization; with one group Layer, with a group a channel Instance Normalization.

    Attributes:
        groups: into how many the channels are divided; None for a group a channel.
        epsilon: added to the variance.
        zero_scale: the scale starts at 0 instead of 1.
    """

    groups: int | None
    epsilon: float = 1e-5
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise x, (N, ..., C); in evaluation as in training.

        Raises:
            ValueError: if the groups do not divide C.
        """
        channels = x.shape[-1]
        groups = channels if self.groups is None else self.groups
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be divided into {groups} groups")
        scale = self.param("scale", _scale_init(self.zero_scale), (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return group_norm(x, scale, bias, groups, self.epsilon).astype(x.dtype)


def norm_layer(
    norm: str, *, groups: int, momentum: float, name: str, zero_scale: bool = False
) -> nn.Module:
    """The layer of a norm.

    Args:
        norm: "batch"; "layer" (over positions and channels of an image, affine by channel, as Wu
            & He describe it); "instance" (over the positions, affine); "group".
        groups: of "group".
        momentum: of "batch".
        name: of the sub-module.
        zero_scale: the scale starts at 0 instead of 1.

    Raises:
        ValueError: if there is no such norm.
    """
    if norm == "batch":
        return BatchNorm(momentum=momentum, zero_scale=zero_scale, name=name)
    of_norm = {"layer": 1, "instance": None, "group": groups}
    if norm not in of_norm:
        raise ValueError(f"no norm is called {norm!r}")
    return GroupNorm(of_norm[norm], zero_scale=zero_scale, name=name)
