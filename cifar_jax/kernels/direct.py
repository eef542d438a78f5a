"""Convolutions in the one layout that XLA's CPU libraries are fast in, and their gradients.

The libraries compute (N, ..., C) with (..., C, K), and want many output channels. XLA converts
other layouts only at the outermost level of a program. So in a loop, its own gradients take up to
a hundred times as long. Here each gradient is a convolution in that layout.
"""

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.kernels import onednn
from cifar_jax.kernels.taps import output_size, taps

_MIN_FEATURES = 32
_MIN_CHUNK = 4  # images
_ONEDNN_CHUNK = 16  # images


@dataclass(frozen=True)
class Geometry:
    """What a convolution does besides its operands; a tuple has one entry a spatial axis.

    Attributes:
        strides: of the output's positions.
        padding: zeros before and after; negative to cut off.
        dilation: distance of neighbouring elements of the kernel.
        groups: each of the output's groups of channels reads one of the input's.
        precision: of the products, as of `jax.lax.dot_general`.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    precision: lax.PrecisionLike = None


def xla(x: jax.Array, kernel: jax.Array, geometry: Geometry, **options: Any) -> jax.Array:
    """XLA's own convolution, (N, ..., Cin) with (..., Cin / groups, Cout) -> (N, ..., Cout)."""
    spatial = "DHW"[3 - len(geometry.strides) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=geometry.groups,
        precision=geometry.precision,
        **options,
    )


def _pair(features: int, size: int) -> int:
    """How many neighbouring outputs along the last axis to compute as channels."""
    return 2 if features < _MIN_FEATURES and size % 2 == 0 else 1


def _padding(read: int, count: int, stride: int, low: int, size: int) -> tuple[int, int]:
    """Zeros before and after `size` elements, so that `count` windows of `read` elements fit."""
    return low, (count - 1) * stride + read - low - size


def _pair_of_kernels(kernel: jax.Array, stride: int) -> jax.Array:
    """A kernel that computes two neighbouring outputs along the last axis: (..., Cin, 2 * Cout)."""
    last = kernel.ndim - 3

    def shifted(before: int) -> jax.Array:
        pads = [(0, 0)] * kernel.ndim
        pads[last] = (before, stride - before)
        return jnp.pad(kernel, pads)

    return jnp.concatenate([shifted(0), shifted(stride)], -1)


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`xla` without groups; narrow results are computed in pairs of neighbours."""
    (low, high), stride, features = geometry.padding[-1], geometry.strides[-1], kernel.shape[-1]
    size = output_size(x.shape[-2] + low + high, kernel.shape[-3], stride)
    if geometry.dilation[-1] != 1 or _pair(features, size) == 1:
        return xla(x, kernel, geometry)
    wide = _pair_of_kernels(kernel, stride)
    last = _padding(wide.shape[-3], size // 2, 2 * stride, low, x.shape[-2])
    y = xla(
        x,
        wide,
        replace(
            geometry,
            strides=(*geometry.strides[:-1], 2 * stride),
            padding=(*geometry.padding[:-1], last),
        ),
    )
    return y.reshape(*y.shape[:-2], size, features)


def by_onednn(*operands: jax.Array) -> bool:
    """Return whether oneDNN computes `training_conv` of these arrays and its gradients."""
    return onednn.fits(*operands) and all(a.ndim == 4 for a in operands)


def training_conv(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, images_first: bool = False
) -> jax.Array:
    """`conv` in a program that computes gradients: by oneDNN, if it can. Then nothing is cached.

    Args:
        images_first: the kernel is (Cin, ..., Cout).
    """
    if by_onednn(x, kernel) and min(itertools.chain(*geometry.padding)) >= 0:
        layout = "IHWO" if images_first else "HWIO"
        return onednn.conv(x, kernel, geometry.strides, geometry.padding, geometry.dilation, layout)
    return conv(x, jnp.moveaxis(kernel, 0, -2) if images_first else kernel, geometry)


def transposed(
    g: jax.Array, x: jax.Array, kernel: jax.Array, geometry: Geometry
) -> tuple[jax.Array, Geometry]:
    """Kernel and geometry that take g, with zeros between for the strides, to x's gradient."""
    strides, dilation = geometry.strides, geometry.dilation
    padding = []
    for i, (low, _) in enumerate(geometry.padding):
        reach = dilation[i] * (kernel.shape[i] - 1)
        spread = strides[i] * (g.shape[i + 1] - 1) + 1
        padding.append(_padding(reach + 1, x.shape[i + 1], 1, reach - low, spread))
    flipped = jnp.flip(kernel, range(len(padding))).swapaxes(-1, -2)
    return flipped, replace(geometry, strides=(1,) * len(padding), padding=tuple(padding))


def strided_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, geometry: Geometry
) -> jax.Array:
    """Gradient of `xla` by x: one product, then a sum over the elements of the kernel.

    Inputs of one phase (position modulo the strides) read the same elements of the kernel.
    """
    if set(geometry.dilation) != {1}:
        flipped, backward = transposed(g, x, kernel, geometry)
        return xla(g, flipped, backward, lhs_dilation=geometry.strides)
    *window, c, features = kernel.shape
    strides, outer = geometry.strides, x.shape[1:-1]
    matrix = kernel.reshape(-1, features).T
    product = jnp.matmul(g.reshape(-1, features), matrix, precision=geometry.precision)
    product = product.reshape(*g.shape[:-1], *window, c)
    count = [-(-n // stride) for n, stride in zip(outer, strides, strict=True)]
    zero = jnp.zeros((), x.dtype)
    phases = []
    for phase in itertools.product(*map(range, strides)):
        total = jnp.broadcast_to(zero, (len(x), *count, c))
        for tap in itertools.product(*map(range, window)):
            moves = [
                divmod(at + low - k, stride)
                for at, k, stride, (low, _) in zip(
                    phase, tap, strides, geometry.padding, strict=True
                )
            ]
            if not any(rest for _, rest in moves):
                config = [
                    (-by, n - size + by, 0)
                    for (by, _), n, size in zip(moves, count, g.shape[1:-1], strict=True)
                ]
                part = product[(..., *tap, slice(None))]
                total += lax.pad(part, zero, [(0, 0, 0), *config, (0, 0, 0)])
        phases.append(total)
    y = jnp.stack(phases, -2).reshape(len(x), *count, *strides, c)
    axes = range(1, 1 + len(count))
    y = y.transpose(0, *itertools.chain(*((i, i + len(count)) for i in axes)), y.ndim - 1)
    y = y.reshape(len(x), *(n * stride for n, stride in zip(count, strides, strict=True)), c)
    return y[(slice(None), *map(slice, outer))]


def _kernel_gradient_of_chunk(
    g: jax.Array, x: jax.Array, kernel: jax.Array, geometry: Geometry
) -> jax.Array:
    """Gradient of `xla` by the kernel: x convolved by g, images as channels.

    Columns and channels of x are one axis. So its transposition is that of a matrix, and the
    products have columns times channels as rows.
    """
    n, *outer, columns, c = x.shape
    *window, k, _, features = kernel.shape
    strides, dilation = geometry.strides, geometry.dilation
    pair = 1 if by_onednn(x, g) else _pair(features, g.shape[-2])
    weights = g.reshape(*g.shape[:-2], -1, pair * features)
    padding = [
        _padding(strides[i] * (g.shape[i + 1] - 1) + 1, window[i], dilation[i], low, outer[i])
        for i, (low, _) in enumerate(geometry.padding[:-1])
    ]
    step, low = strides[-1] * pair, geometry.padding[-1][0]
    read = dilation[-1] * (k - 1) + strides[-1] * (pair - 1) + 1  # Columns that a pair meets.
    _, high = _padding(step * (weights.shape[-2] - 1) + 1, read, 1, low, columns)
    y = training_conv(
        x.reshape(n, -1).T.reshape(1, *outer, columns * c, n),
        weights,
        replace(
            geometry,
            strides=(*dilation[:-1], 1),
            padding=(*padding, (low * c, high * c)),
            dilation=(*strides[:-1], step * c),
        ),
        images_first=True,
    ).reshape(*window, read, c, pair, features)
    parts = []
    for i in range(pair):
        start = strides[-1] * i
        end = start + dilation[-1] * (k - 1) + 1
        part = lax.slice_in_dim(y, start, end, dilation[-1], len(window))
        parts.append(part[..., i, :])
    return functools.reduce(jnp.add, parts)


def _narrow_kernel_gradient_of_chunk(
    g: jax.Array, x: jax.Array, kernel: jax.Array, geometry: Geometry
) -> jax.Array:
    """The same for few channels: one product of x's shifted columns and g's shifted rows.

    Args:
        geometry: of two axes, without strides and dilation.
    """
    rows, columns, c, features = kernel.shape
    (top, _), (left, right) = geometry.padding
    zero = jnp.zeros((), x.dtype)
    x_padded = lax.pad(x, zero, [(0, 0, 0), (0, 0, 0), (left, right, 0), (0, 0, 0)])
    bottom = x.shape[1] - g.shape[1] + top
    g_padded = lax.pad(g, zero, [(0, 0, 0), (rows - 1 - top, bottom, 0), (0, 0, 0), (0, 0, 0)])
    shifted_x = jnp.concatenate(taps(x_padded, (2,), (columns,), (1,)), -1)
    shifted_g = jnp.concatenate(taps(g_padded, (1,), (rows,), (1,))[::-1], -1)
    # As matrices: of more axes XLA would transpose one.
    shifted_x, shifted_g = (a.reshape(-1, a.shape[-1]) for a in (shifted_x, shifted_g))
    y = lax.dot_general(
        shifted_x, shifted_g, (((0,), (0,)), ((), ())), precision=geometry.precision
    )
    return y.reshape(columns, c, rows, features).transpose(2, 0, 1, 3)


def kernel_gradient(g: jax.Array, x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient of `xla` by the kernel, in chunks of images that stay in the cache."""
    positions = math.prod(g.shape[1:-1])
    size = max(_MIN_CHUNK, -(-math.prod(kernel.shape[:-1]) // positions))
    of_chunk = _kernel_gradient_of_chunk
    if by_onednn(x, g):
        size = _ONEDNN_CHUNK
    elif geometry.strides == geometry.dilation == (1, 1) and kernel.shape[-1] < _MIN_FEATURES:
        of_chunk = _narrow_kernel_gradient_of_chunk
    size = min(len(x), size)
    whole, left = divmod(len(x), size)

    def part(start: Any, count: int) -> jax.Array:
        # Slices of x itself: XLA would compute x again for another shape.
        images, gradients = (lax.dynamic_slice_in_dim(a, start, count) for a in (x, g))
        return of_chunk(gradients, images, kernel, geometry)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + part(i * size, size)

    total = lax.fori_loop(0, whole, add, jnp.zeros_like(kernel))
    return total + part(whole * size, left) if left else total
