"""3x3 convolution of few channels: one matrix product from 4x4 patches to 2x2 blocks of outputs."""

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.kernels import winograd

_BLOCK = 2
_SPLIT = 4


def rows_product(
    rows: jax.Array, matrix: jax.Array, precision: lax.PrecisionLike = None
) -> jax.Array:
    """(M, K) @ (K, L) as `_SPLIT` products, so that the matrix's gradient is a sum of as many.

    As one product over very many rows with a small result it would take twice as long.
    """
    if len(rows) % _SPLIT:
        return jnp.matmul(rows, matrix, precision=precision)
    split = rows.reshape(_SPLIT, -1, rows.shape[-1])
    copies = jnp.broadcast_to(matrix, (_SPLIT, *matrix.shape))
    return jnp.matmul(split, copies, precision=precision).reshape(len(rows), -1)


def _pairs(x: jax.Array) -> jax.Array:
    """The 4x4 inputs that each 2x2 block of outputs reads: (N, H, W, C) -> (N, H/2, W/2, 16 * C).

    They are copied in pairs of neighbours, 2x2 pairs of rows and columns per patch. With few
    channels, the time of a copy depends on the number of contiguous parts. The four are stacked at
    once, because XLA's loop over nested concatenations is several times slower.
    """
    n, h, w, c = x.shape
    rows, cols = h // _BLOCK, w // _BLOCK
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(n, rows + 1, _BLOCK, cols + 1, _BLOCK * c)
    pairs = jnp.stack([x[:, i : i + rows, :, j : j + cols] for i in (0, 1) for j in (0, 1)])
    pairs = pairs.reshape(2, 2, *pairs.shape[1:])
    return pairs.transpose(2, 3, 5, 0, 4, 1, 6).reshape(n, rows, cols, -1)


def conv3x3_in_blocks(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike = None
) -> jax.Array:
    """3x3 convolution, same padding, in 2x2 blocks: (N, H/2, W/2, 2, 2, Cout); H and W even."""
    n, h, w, c = x.shape
    rows, cols, features = h // _BLOCK, w // _BLOCK, kernel.shape[-1]
    side = _BLOCK + 2
    shifts = range(_BLOCK)
    matrix = jnp.stack(
        [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in shifts for j in shifts],
        axis=3,
    ).reshape(side * side * c, _BLOCK * _BLOCK * features)
    y = rows_product(_pairs(x).reshape(-1, side * side * c), matrix, precision)
    return y.reshape(n, rows, cols, _BLOCK, _BLOCK, features)


def blocks(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike = None) -> jax.Array:
    """One matrix product from 4x4 patches to 2x2 blocks of outputs; for few channels.

    The matrix is (16 * Cin, 4 * Cout), 9/16 of it not zero. It does more multiplications than
    the usual (9 * Cin, Cout). That one has too little work per element read for three channels.
    """
    height, width = x.shape[1:3]
    x = winograd.pad_to_tiles(x, _BLOCK)
    n, h, w, _ = x.shape
    y = conv3x3_in_blocks(x, kernel, precision).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, h, w, -1)[:, :height, :width]
