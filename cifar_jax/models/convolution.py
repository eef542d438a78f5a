"""3x3 convolution in the formulation that is fastest on the backend at hand.

XLA's own convolution is used on accelerators. On the CPU its forward pass is fair, but its weight
gradient runs at a tenth of the speed of a matrix product, and inside a loop (`lax.scan`) a hundred
times slower still; there the same sums are written as matrix products. benchmarks/layers.py
measures each formulation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.models import winograd

_BLOCK = 2
_MIN_WINOGRAD_CHANNELS = 16


def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One matrix product from 4x4 patches to 2x2 blocks of outputs; for few channels.

    The matrix is (16 * Cin, 4 * Cout), 9/16 of it not zero. It does more multiplications than
    the usual (9 * Cin, Cout), which for three channels has too little work per element read.
    """
    height, width = x.shape[1:3]
    x = winograd.pad_to_tiles(x, _BLOCK)
    n, h, w, c = x.shape
    rows, cols, features = h // _BLOCK, w // _BLOCK, kernel.shape[-1]
    side = _BLOCK + 2
    shifts = range(_BLOCK)
    matrix = jnp.stack(
        [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in shifts for j in shifts],
        axis=3,
    ).reshape(side * side * c, _BLOCK * _BLOCK * features)
    patches = winograd.tiles(x, _BLOCK).transpose(0, 1, 3, 2, 4, 5)
    y = patches.reshape(n * rows * cols, side * side * c) @ matrix
    y = y.reshape(n, rows, cols, _BLOCK, _BLOCK, features)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, features)[:, :height, :width]


FORMULATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "xla": xla,
    "blocks": blocks,
    "winograd": winograd.conv3x3,
}


def choose(platform: str, channels: int) -> str:
    """The key of `FORMULATIONS` for a backend and a number of input channels."""
    if platform != "cpu":
        return "xla"
    return "blocks" if channels < _MIN_WINOGRAD_CHANNELS else "winograd"


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    formulation: str | None = None,
) -> jax.Array:
    """3x3 convolution (cross-correlation), stride 1, same (zero) padding.

    Args:
        x: (N, H, W, Cin).
        kernel: (3, 3, Cin, Cout), the dtype of x.
        bias: (Cout,) or None.
        formulation: key of `FORMULATIONS`; by default `choose` decides.

    Returns:
        (N, H, W, Cout), the dtype of x.
    """
    name = formulation or choose(jax.default_backend(), x.shape[-1])
    y = FORMULATIONS[name](x, kernel)
    return y if bias is None else y + bias
