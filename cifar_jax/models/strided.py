"""Convolutions of residual networks that skip positions: 3x3 with stride 2, and 1x1.

XLA's own is used where `cifar_jax.models.convolution.choose` takes it, else a matrix product.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.models.convolution import choose, is_stacked


def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _taps(x: jax.Array, axis: int) -> list[jax.Array]:
    """What outputs 0, 1, ... read along an axis of even length: the elements 2i-1, 2i and 2i+1."""
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    before = [(0, 0, 0)] * x.ndim
    before[axis] = (1, -1, 0)
    return [lax.pad(odd, jnp.zeros((), x.dtype), before), even, odd]


def patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One matrix product from the 3x3 patches, (9 * Cin), at every other position."""
    _, h, w, channels = x.shape
    # Zeros at the end: what lies beyond the image is zero anyway.
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    read = jnp.concatenate([tap for row in _taps(x, 1) for tap in _taps(row, 2)], axis=-1)
    return read @ kernel.reshape(9 * channels, -1)


FORMULATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "xla": xla,
    "patches": patches,
}


def conv3x3_stride2(
    x: jax.Array, kernel: jax.Array, *, formulation: str | None = None
) -> jax.Array:
    """3x3 convolution (cross-correlation) with stride 2 and one zero around, as PyTorch pads.

    Args:
        x: (N, H, W, Cin).
        kernel: (3, 3, Cin, Cout), the dtype of x.
        formulation: key of `FORMULATIONS`; by default as `choose` decides.

    Returns:
        (N, ceil(H/2), ceil(W/2), Cout), the dtype of x.
    """
    chosen = choose(jax.default_backend(), x.shape[-1], is_stacked())
    name = formulation or ("xla" if chosen == "xla" else "patches")
    return FORMULATIONS[name](x, kernel)


def conv1x1(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """1x1 convolution without padding, a matrix product at every `stride`-th position.

    Args:
        x: (N, H, W, Cin).
        kernel: (1, 1, Cin, Cout), the dtype of x.

    Returns:
        (N, ceil(H/stride), ceil(W/stride), Cout), the dtype of x.
    """
    return x[:, ::stride, ::stride] @ kernel[0, 0]
