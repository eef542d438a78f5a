"""Batch Normalization in train mode, alone and fused with the ReLU and pooling after it."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.core.norms import wide
from cifar_jax.kernels import pooling

_Triple = tuple[jax.Array, jax.Array, jax.Array]  # results, or gradients of x, scale and bias
_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # x, scale, mean, 1 / sqrt(var + eps)


# XLA sums so many rows in a few blocks of threads of a GPU. In parts it takes a tenth of the time.
_ROWS_SUMMED_IN_PARTS = range(513, 4097)
_PARTS = 16


def _moments(x: jax.Array, platform: str) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over all axes but the last, in float32 or x's wider dtype.

    On a CPU the variance is the mean square of x minus its mean, in two passes. The difference of
    mean square and squared mean would lose digits if the mean is large. Elsewhere both moments are
    of x minus its first row, in one pass. Their difference is exact enough, because that row is a
    few standard deviations from the mean.
    """
    if platform == "cpu":
        # In the shape of x, this difference would be the same as the one that is normalised. Then
        # XLA would keep it in memory for both. XLA sums arrays of three axes faster.
        images = wide(x).reshape(len(x), -1, x.shape[-1])
        mean = jnp.mean(images, (0, 1))
        return mean, jnp.mean(jnp.square(images - mean), (0, 1))
    rows = wide(x).reshape(-1, x.shape[-1])
    shifted = rows - rows[0]
    first, second = (a / len(rows) for a in _sums(platform, shifted, jnp.square(shifted)))
    return rows[0] + first, jnp.maximum(second - jnp.square(first), 0)


def _sums(platform: str, *arrays: jax.Array) -> Sequence[jax.Array]:
    """Return the sum of each array (..., C) over all axes but the last."""
    if platform == "cpu":
        return [jnp.sum(a, range(a.ndim - 1)) for a in arrays]
    rows = [a.reshape(-1, a.shape[-1]) for a in arrays]
    if len(rows[0]) in _ROWS_SUMMED_IN_PARTS and not len(rows[0]) % _PARTS:
        parts = _sums_of_rows([a.reshape(_PARTS, -1, a.shape[-1]) for a in rows], 1)
        rows = lax.optimization_barrier(parts)  # XLA would make one sum of both.
    return _sums_of_rows(rows, 0)


def _sums_of_rows(arrays: list[jax.Array], axis: int) -> list[jax.Array]:
    """Return the sum of each array over an axis. All sums are computed in one loop."""

    def add(left: list[jax.Array], right: list[jax.Array]) -> list[jax.Array]:
        return [x + y for x, y in zip(left, right, strict=True)]

    zeros = [jnp.zeros((), a.dtype) for a in arrays]
    sums: list[jax.Array] = lax.reduce(arrays, zeros, add, (axis,))
    return sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float, platform: str
) -> _Triple:
    """Normalise x, (..., C), by its own statistics over all axes but the last.

    Args:
        x: (..., C).
        scale: (C,), float32 or wider, as is what x is computed in.
        bias: (C,), the dtype of scale.
        eps: added to the variance.
        platform: JAX's name of the backend, "cpu" for example.

    Returns:
        The normalised x, in its dtype, its mean (C,) and its biased variance (C,), float32 or
        wider. All three have gradients.
    """
    return _batch_norm_fwd(x, scale, bias, eps, platform)[0]


def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float, platform: str
) -> tuple[_Triple, _Saved]:
    """`batch_norm` whose first result is float32 or wider, and what the backward pass needs."""
    mean, var = _moments(x, platform)
    inverse = lax.rsqrt(var + eps)
    y = (wide(x) - mean) * (scale * inverse) + bias
    return (y, mean, var), (x, scale, mean, inverse)


def _batch_norm_fwd(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float, platform: str
) -> tuple[_Triple, _Saved]:
    """Forward pass for `custom_vjp`: results, and what the backward pass needs."""
    (y, mean, var), saved = _normalise(x, scale, bias, eps, platform)
    return (y.astype(x.dtype), mean, var), saved


def _input_gradient(
    saved: _Saved,
    g: jax.Array,
    d_scale: jax.Array,
    d_bias: jax.Array,
    g_mean: jax.Array,
    g_var: jax.Array,
) -> jax.Array:
    """Ioffe & Szegedy 2015, section 3, with the cotangents of mean and variance added.

    Args:
        g: cotangent of the normalised x, times the factor scale / sqrt(var + eps); float32 or
            wider.
    """
    x, scale, mean, inverse = saved
    # The last operation is a division by a number that varies: XLA does it once a channel. A
    # product, or a division by a constant, it would repeat for each element.
    deviation = 1 / inverse
    total = x.size // x.shape[-1] * deviation
    slope = (2 * g_var * deviation - scale * inverse * d_scale) / total
    offset = (g_mean * deviation - scale * d_bias) / total
    return (g + (wide(x) - mean) * slope + offset).astype(x.dtype)


def _batch_norm_bwd(eps: float, platform: str, saved: _Saved, cotangents: _Triple) -> _Triple:
    """Backward pass for `custom_vjp`: gradients of x, scale and bias."""
    x, scale, mean, inverse = saved
    g, g_mean, g_var = cotangents
    g = wide(g)
    if platform == "cpu":
        # In another shape than in `_moments` and `_input_gradient`: XLA would keep a shared
        # difference.
        g_rows, x_rows = (a.reshape(-1, *a.shape[-2:]) for a in (g, wide(x)))
        d_bias = jnp.sum(g_rows, (0, 1))
        d_scale = jnp.sum(g_rows * (x_rows - mean), (0, 1)) * inverse
    else:
        d_bias, d_scale = _sums(platform, g, g * (wide(x) - mean))
        d_scale *= inverse
    scaled = g * (scale * inverse)
    return _input_gradient(saved, scaled, d_scale, d_bias, g_mean, g_var), d_scale, d_bias


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def batch_norm_relu_max_pool_windows(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    eps: float,
    axes: tuple[int, int],
    platform: str,
) -> _Triple:
    """ReLU and maximum over windows of `batch_norm`, values and gradients, in fewer passes.

    The normalised x is never stored. The pooling gives a gradient to at most one element of each
    window. So the sums of the backward pass run over a quarter of the data.

    Args:
        x: (..., C), with two axes of size 2.
        scale, bias, eps, platform: see `batch_norm`.
        axes: of the window's row and column; see `pooling`.

    Returns:
        x's shape without these axes, and the mean (C,) and biased variance (C,) of x. All three
        have gradients.
    """
    return _fused_fwd(x, scale, bias, eps, axes, platform)[0]


def _fused_fwd(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    eps: float,
    axes: tuple[int, int],
    platform: str,
) -> tuple[_Triple, tuple[_Saved, jax.Array]]:
    """Forward pass for `custom_vjp`. Save each window's position of the maximum, in x's dtype."""
    (normalised, mean, var), saved = _normalise(x, scale, bias, eps, platform)
    y, position = pooling.relu_max_and_position(normalised, axes)
    y, position = y.astype(x.dtype), position.astype(x.dtype)
    if platform != "cpu":  # Both in one loop, and not again in the next convolution.
        y, position = lax.optimization_barrier((y, position))
    return (y, mean, var), (saved, position)


def _fused_bwd(
    eps: float,
    axes: tuple[int, int],
    platform: str,
    residuals: tuple[_Saved, jax.Array],
    cotangents: _Triple,
) -> _Triple:
    """Backward pass for `custom_vjp`: gradients of x, scale and bias.

    Only the largest element of a window has a gradient: `g` and `largest` have one per window.
    """
    saved, position = residuals
    x, scale, mean, inverse = saved
    g, g_mean, g_var = cotangents
    g = wide(jnp.where(position == pooling.NOWHERE, 0, g))
    largest = wide(pooling.gather(position, x, axes))
    d_bias, d_scale = _sums(platform, g, g * (largest - mean))
    d_scale *= inverse
    scaled = pooling.scatter(position, g * (scale * inverse), axes)
    return _input_gradient(saved, scaled, d_scale, d_bias, g_mean, g_var), d_scale, d_bias


batch_norm_relu_max_pool_windows.defvjp(_fused_fwd, _fused_bwd)


def batch_norm_relu_max_pool_2x2(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float, platform: str
) -> _Triple:
    """`relu_max_pool_2x2` of `batch_norm`: see `batch_norm_relu_max_pool_windows`.

    Args:
        x: (N, H, W, C), H and W even.
        scale, bias, eps, platform: see `batch_norm`.

    Returns:
        (N, H/2, W/2, C), and the mean (C,) and biased variance (C,) of x.

    Raises:
        ValueError: x is not four-dimensional, or H or W is odd.
    """
    return batch_norm_relu_max_pool_windows(
        pooling.split_windows(x), scale, bias, eps, pooling.NHWC_AXES, platform
    )
