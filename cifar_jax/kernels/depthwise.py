"""Depthwise convolution as a sum of shifted products."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cifar_jax.kernels.taps import taps


def conv(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], dilation: Sequence[int]
) -> jax.Array:
    """Convolve each channel by kernels of its own.

    Args:
        x: (N, ..., C), padded.
        kernel: (..., M * C), M kernels a channel, the dtype of x.
        strides: one a spatial axis.
        dilation: likewise.

    Returns:
        (N, ..., M * C), the dtype of x; channels in the order of the kernels.
    """
    axes = range(1, x.ndim - 1)
    *window, features = kernel.shape
    if features != x.shape[-1]:
        x = jnp.repeat(x, features // x.shape[-1], axis=-1)
    return functools.reduce(
        jnp.add,
        [
            tap * weights
            for tap, weights in zip(
                taps(x, axes, window, strides, dilation),
                kernel.reshape(-1, features),
                strict=True,
            )
        ],
    )
