"""Winograd's minimal filtering: a 3x3 convolution as matrix products with 4x fewer multiplications.

Lavin & Gray 2016 (arXiv 1509.09308), equation 8: Y = A^T [(G g G^T) * (B^T d B)] A, summed over
input channels. Y is a 4x4 tile of outputs, d the 6x6 inputs that it reads, g the kernel.

The inputs' transform is a sum of slices, over rows and then over columns. XLA makes one loop of
each, which reads the image itself, so the overlapping tiles are never stored. The gradient of the
outputs' transform is a sum of slices too. The other transforms are products with a constant
matrix, which are as fast there and compile faster.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.core.norms import wide
from cifar_jax.kernels import onednn

TILE = 4
"""Outputs per side of one tile."""

_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Interpolation points (and infinity): a fifth less rounding error than the usual 0, +-1, +-2;
Barabasz et al. 2020 (arXiv 1803.10986), table 2."""


@functools.cache
def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-dimensional transforms of output (4, 6), kernel (6, 3) and input (6, 6), float64.

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
    return output, kernel, data


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """The rows of the matrix, as weights of the parts, stacked along a new axis."""
    rows = []
    for weights in matrix:
        terms = [w.astype(x.dtype) * x for w, x in zip(weights, parts, strict=True) if w]
        rows.append(functools.reduce(operator.add, terms))
    return jnp.stack(rows, axis)


def _two_sided_product(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """m x m^T over the first two axes of x, for a matrix m, by its Kronecker square."""
    rows, columns = matrix.shape
    square = jnp.asarray(np.kron(matrix, matrix), x.dtype)
    y = jnp.matmul(square, x.reshape(columns**2, -1), precision="highest")
    return y.reshape(rows, rows, *x.shape[2:])


@jax.custom_vjp
def _transform_output(y: jax.Array) -> jax.Array:
    """A^T y A: (6, 6, ...) -> (4, 4, ...)."""
    return _two_sided_product(_transforms()[0], y)


def _transform_output_fwd(y: jax.Array) -> tuple[jax.Array, None]:
    return _transform_output(y), None


def _transform_output_bwd(_: None, g: jax.Array) -> tuple[jax.Array]:
    # XLA fuses the first sum with the computation of g, for example a pooling's gradient.
    matrix = _transforms()[0].T
    rows = _combine(matrix, list(g), 0)
    return (_combine(matrix, [rows[:, i] for i in range(g.shape[1])], 1),)


_transform_output.defvjp(_transform_output_fwd, _transform_output_bwd)


def _transform_kernel(kernel: jax.Array) -> jax.Array:
    """G g G^T: (3, 3, Cin, Cout) -> (36, Cin, Cout)."""
    return _two_sided_product(_transforms()[1], kernel).reshape(-1, *kernel.shape[2:])


def _shift(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Move x by one (1 or -1) along an axis; what moves in is zero."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _reads(x: jax.Array, axis: int) -> list[jax.Array]:
    """What the tiles read along an axis, one array a position; the axis before it counts tiles."""
    inner = [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
    return [_shift(inner[-1], 1, axis - 1), *inner, _shift(inner[0], -1, axis - 1)]


def _add_reads(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Transpose of `_combine(matrix, _reads(x, axis), ...)`: x's gradient from those of its rows.

    A stack computes each element once. JAX's own transpose adds four arrays with zeros between.
    """
    columns = _combine(_transforms()[2].T, parts, 0)
    before, *inner, after = list(columns)
    inner[-1] += _shift(before, -1, axis - 1)
    inner[0] += _shift(after, 1, axis - 1)
    return jnp.stack(inner, axis)


@jax.custom_vjp
@functools.partial(jax.jit, inline=True)  # Layers of one shape are traced once.
def _transform_input(x: jax.Array) -> jax.Array:
    """B^T d B of all tiles: (N, H, W, C) -> (36, N * H/4 * W/4, C); 4 divides H and W."""
    n, h, w, c = x.shape
    _, _, matrix = _transforms()
    x = x.reshape(n, h // TILE, TILE, w // TILE, TILE, c)
    x = _combine(matrix, _reads(x, 2), 0)
    x = _combine(matrix, _reads(x, 4), 1)
    return x.reshape(len(matrix) ** 2, -1, c)


def _transform_input_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Only the input's shape is needed; XLA keeps nothing of an unused array.
    return _transform_input(x), x


@functools.partial(jax.jit, inline=True)
def _transform_input_bwd(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    n, h, w, c = x.shape
    size = TILE + 2
    g = g.reshape(size, size, n, h // TILE, w // TILE, c)
    rows = _add_reads([g[:, j] for j in range(size)], 4)
    return (_add_reads(list(rows), 2).reshape(x.shape),)


_transform_input.defvjp(_transform_input_fwd, _transform_input_bwd)


def pad_to_tiles(x: jax.Array, tile: int) -> jax.Array:
    """Zeros at the bottom and right up to a whole number of tiles; `same` padding is zero too."""
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -h % tile), (0, -w % tile), (0, 0)))


def _products(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    """Transformed inputs times kernels: (36, M, Cin) with (36, Cin, Cout) -> (36, M, Cout)."""
    return jnp.einsum("tmc,tck->tmk", x, kernel, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _products_by_onednn(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    """`_products` whose gradient by the kernels is oneDNN's: it takes 0.6 of the time of XLA's."""
    return _products(x, kernel, precision)


def _products_forward(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _products(x, kernel, precision), (x, kernel)


def _products_backward(
    precision: lax.PrecisionLike, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return jnp.einsum("tmk,tck->tmc", g, kernel, precision=precision), onednn.gram(x, g)


_products_by_onednn.defvjp(_products_forward, _products_backward)


def tiled_conv3x3(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike = None, by_onednn: bool = False
) -> jax.Array:
    """`conv3x3` that leaves its result in tiles: (4, 4, N, H/4, W/4, Cout); 4 divides H and W.

    The first two axes are row and column in a tile. It computes bfloat16 in float32, because the
    transforms would make its rounding error about ten times larger.
    """
    n, h, w, _ = x.shape
    dtype = x.dtype
    rows, cols, features = h // TILE, w // TILE, kernel.shape[-1]
    x, kernel = _transform_input(wide(x)), _transform_kernel(wide(kernel))
    y = (_products_by_onednn if by_onednn else _products)(x, kernel, precision)
    y = _transform_output(y.reshape(TILE + 2, TILE + 2, *y.shape[1:]))
    return y.reshape(TILE, TILE, n, rows, cols, features).astype(dtype)


def conv3x3(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike = None, by_onednn: bool = False
) -> jax.Array:
    """3x3 convolution, stride 1, same padding: (N, H, W, Cin) -> (N, H, W, Cout).

    In float32 the relative error is about 1e-6, that of the direct sum 4e-7.

    Args:
        by_onednn: compute the kernel's gradient by oneDNN. Then the program is not cached.
    """
    n, height, width, _ = x.shape
    y = tiled_conv3x3(pad_to_tiles(x, TILE), kernel, precision, by_onednn)
    _, _, _, rows, cols, features = y.shape
    y = y.transpose(2, 3, 0, 4, 1, 5).reshape(n, rows * TILE, cols * TILE, features)
    return y[:, :height, :width]
