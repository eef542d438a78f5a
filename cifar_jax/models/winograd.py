"""Winograd's minimal filtering: a 3x3 convolution as matrix products with 4x fewer multiplications.

Lavin & Gray 2016 (arXiv 1509.09308), equation 8: Y = A^T [(G g G^T) * (B^T d B)] A, summed over
input channels, for each 4x4 tile of outputs and the 6x6 inputs d that it reads. All three
transforms are written as products with constant matrices (the Kronecker square of the
one-dimensional ones, on flattened tiles), so the gradients that JAX derives are products too, and
the transformed input is computed once for the forward pass and the weight gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.models.dtypes import wide

TILE = 4
"""Outputs a side of one tile."""

_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Interpolation points (and infinity): a fifth less rounding error than the usual 0, +-1, +-2;
Barabasz et al. 2020 (arXiv 1803.10986), table 2."""


@functools.cache
def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output (16, 36), kernel (36, 9) and input (36, 36) transforms of flattened tiles, float64.

    The Toom-Cook construction: evaluate two polynomials at the points, multiply, interpolate;
    transposed, which turns the product of polynomials into a correlation.
    """
    points = np.array(_POINTS)
    size = len(points) + 1
    output = np.zeros((TILE, size))
    kernel = np.zeros((size, 3))
    data = np.zeros((size, size))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        output[:, i] = point ** np.arange(TILE)
        kernel[i] = point ** np.arange(3) / np.prod(point - others)
        data[i, :-1] = np.poly(others)[::-1]
    output[-1, -1] = kernel[-1, -1] = 1
    data[-1] = np.poly(points)[::-1]
    return np.kron(output, output), np.kron(kernel, kernel), np.kron(data, data)


def _transform(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Product with the constant matrix over the first axis of x."""
    flat = jnp.asarray(matrix, x.dtype) @ x.reshape(x.shape[0], -1)
    return flat.reshape(-1, *x.shape[1:])


def _shift(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Move x by one (1 or -1) along an axis; what moves in is zero."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def tiles(x: jax.Array, tile: int) -> jax.Array:
    """What each tile x tile block of outputs reads: (N, H, W, C) -> (t+2, t+2, N, H/t, W/t, C)."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // tile, tile, w // tile, tile, c).transpose(2, 4, 0, 1, 3, 5)
    for axis in (0, 1):
        last = _shift(lax.slice_in_dim(x, tile - 1, tile, axis=axis), 1, axis + 3)
        first = _shift(lax.slice_in_dim(x, 0, 1, axis=axis), -1, axis + 3)
        x = jnp.concatenate([last, x, first], axis=axis)
    return x


def pad_to_tiles(x: jax.Array, tile: int) -> jax.Array:
    """Zeros at the bottom and right up to a whole number of tiles; `same` padding is zero too."""
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -h % tile), (0, -w % tile), (0, 0)))


def tiled_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3x3` that leaves its result in tiles: (4, 4, N, H/4, W/4, Cout); 4 divides H and W.

    The first two axes are row and column in a tile. bfloat16 is computed in float32: the transforms
    would make its rounding error about ten times larger.
    """
    n, h, w, c = x.shape
    dtype = x.dtype
    rows, cols, features = h // TILE, w // TILE, kernel.shape[-1]
    output, kernel_transform, data = _transforms()
    size = data.shape[0]
    x, kernel = wide(x), wide(kernel)
    x = _transform(data, tiles(x, TILE).reshape(size, n * rows * cols, c))
    kernel = _transform(kernel_transform, kernel.reshape(9, c, features))
    y = _transform(output, jnp.einsum("tmc,tck->tmk", x, kernel))
    return y.reshape(TILE, TILE, n, rows, cols, features).astype(dtype)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution, stride 1, same padding: (N, H, W, Cin) -> (N, H, W, Cout).

    In float32 the relative error is about 1e-6, that of the direct sum 4e-7.
    """
    n, height, width, _ = x.shape
    y = tiled_conv3x3(pad_to_tiles(x, TILE), kernel)
    _, _, _, rows, cols, features = y.shape
    y = y.transpose(2, 3, 0, 4, 1, 5).reshape(n, rows * TILE, cols * TILE, features)
    return y[:, :height, :width]
