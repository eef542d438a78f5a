"""Shifted, strided views of an array: one for each position in a sliding window."""

import itertools
from collections.abc import Sequence

import jax
from jax import lax


def output_size(size: int, window: int, stride: int = 1, dilation: int = 1) -> int:
    """Return how many windows fit into `size` elements."""
    return max(0, (size - dilation * (window - 1) - 1) // stride + 1)


def _taps_of_axis(
    x: jax.Array, axis: int, window: int, stride: int, dilation: int
) -> list[jax.Array]:
    out = output_size(x.shape[axis], window, stride, dilation)
    if stride > 1:
        # A reshape and a slice of whole blocks: cheaper than a slice with a stride.
        blocks = max(dilation * (window - 1) // stride + out, -(-x.shape[axis] // stride))
        config = [(0, 0, 0)] * x.ndim
        config[axis] = (0, blocks * stride - x.shape[axis], 0)
        x = lax.pad(x, x.dtype.type(0), config)
        x = x.reshape(*x.shape[:axis], blocks, stride, *x.shape[axis + 1 :])
    taps = []
    for offset in range(0, dilation * window, dilation):
        part = x
        if stride > 1:
            part = lax.index_in_dim(x, offset % stride, axis + 1, keepdims=False)
        start = offset // stride
        taps.append(lax.slice_in_dim(part, start, start + out, axis=axis))
    return taps


def taps(
    x: jax.Array,
    axes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int] | None = None,
) -> list[jax.Array]:
    """Return what each position of a window reads, in row-major order of the positions.

    Args:
        x: any shape, already padded.
        axes: that the window slides over.
        window: its size along each of them.
        strides: its step along each of them.
        dilation: distance of neighbouring elements of the window; 1 by default.

    Returns:
        prod(window) arrays; each has x's shape, with the number of windows along `axes`.
    """
    parts = [x]
    for axis, size, stride, step in zip(
        axes, window, strides, dilation or [1] * len(axes), strict=True
    ):
        split = (_taps_of_axis(part, axis, size, stride, step) for part in parts)
        parts = list(itertools.chain.from_iterable(split))
    return parts
