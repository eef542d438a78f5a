"""The layers that cost time, as pure functions on NHWC arrays."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.models.convolution import conv3x3
from cifar_jax.models.pooling import max_pool_2x2, relu_max_pool_2x2

__all__ = ["batch_norm", "conv3x3", "max_pool_2x2", "relu_max_pool_2x2"]

_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise x, (..., C), by its own statistics over all axes but the last.

    The variance is the mean square of x minus its mean (two passes): the difference of mean
    square and squared mean loses digits where the mean is large.

    Args:
        x: (..., C).
        scale: (C,).
        bias: (C,).
        eps: added to the variance.

    Returns:
        The normalised x, its mean (C,) and its biased variance (C,). All three have gradients.
    """
    return _batch_norm_fwd(x, scale, bias, eps)[0]


def _batch_norm_fwd(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Saved]:
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    var = jnp.mean(jnp.square(x - mean), axes)
    inverse = lax.rsqrt(var + eps)
    y = (x - mean) * (scale * inverse) + bias
    return (y, mean, var), (x, scale, mean, inverse)


def _batch_norm_bwd(
    eps: float, saved: _Saved, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ioffe & Szegedy 2015, section 3, with the cotangents of the mean and variance added."""
    x, scale, mean, inverse = saved
    g, g_mean, g_var = cotangents
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centred = x - mean
    d_bias = jnp.sum(g, axes)
    d_scale = jnp.sum(g * centred, axes) * inverse
    factor = scale * inverse
    slope = (2 * g_var - factor * inverse * d_scale) / count
    offset = (g_mean - factor * d_bias) / count
    return g * factor + centred * slope + offset, d_scale, d_bias


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)
