"""Max pooling with an elementwise backward pass instead of a select-and-scatter.

The functions that end in `_windows` take an array of any layout. Two of its axes have size 2: the
row and the column in a window. So a convolution need not transpose the output of its matrix
products, the largest arrays of the network.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cifar_jax.kernels.taps import taps

Elementwise = Callable[[jax.Array, Sequence[jax.Array]], jax.Array]

NOWHERE = 4
"""Position that no window has: none of its elements gets a gradient."""

NHWC_AXES = (2, 4)
"""Rows and columns of the windows in `split_windows`'s result."""


def split_windows(x: jax.Array) -> jax.Array:
    """(N, H, W, C) -> (N, H/2, 2, W/2, 2, C).

    Raises:
        ValueError: x is not four-dimensional, or H or W is odd.
    """
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"2x2 pooling needs (N, H, W, C) with even H and W, got {x.shape}")
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def _parts(x: jax.Array, axes: tuple[int, int]) -> list[jax.Array]:
    """The four elements of each window in row-major order, without the window's axes."""
    first, second = axes
    index: list[slice | int] = [slice(None)] * x.ndim
    parts = []
    for i in (0, 1):
        for j in (0, 1):
            index[first], index[second] = i, j
            parts.append(x[tuple(index)])
    return parts


def _max(x: jax.Array, axes: tuple[int, int]) -> jax.Array:
    a, b, c, d = _parts(x, axes)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _first_max(x: jax.Array, largest: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Square of the row-major position of the first largest element of each window."""
    a, b, c, _ = (part == largest for part in _parts(x, axes))
    return jnp.where(a, 0, jnp.where(b, 1, jnp.where(c, 4, 9))).astype(x.dtype)


def _stored_root(square: jax.Array) -> jax.Array:
    """The position itself (roots of small squares are exact), computed in the forward pass.

    XLA on the CPU repeats cheap arithmetic instead of storing its result. Here it would do so for
    each of the four elements of a window. It ignores `optimization_barrier`. It never repeats a
    root.
    """
    return jnp.sqrt(square)


def scatter(position: jax.Array, g: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """g at its window's position and zero elsewhere: g's shape with the window's axes inserted."""
    shape = [1] * (g.ndim + 2)
    for axis in axes:
        shape[axis] = 2
    here = jnp.arange(4, dtype=position.dtype).reshape(shape)
    return jnp.where(jnp.expand_dims(position, axes) == here, jnp.expand_dims(g, axes), 0)


def gather(position: jax.Array, x: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The element of x at its window's position, zero where that is `NOWHERE`."""
    found = jnp.zeros((), x.dtype)
    for i, part in enumerate(_parts(x, axes)):
        found = jnp.where(position == i, part, found)
    return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool_windows(x: jax.Array, axes: tuple[int, int]) -> jax.Array:
    return _max(x, axes)


def _max_pool_fwd(x: jax.Array, axes: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    y = _max(x, axes)
    return y, _stored_root(_first_max(x, y, axes))


def _pool_bwd(axes: tuple[int, int], position: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (scatter(position, g, axes),)


_max_pool_windows.defvjp(_max_pool_fwd, _pool_bwd)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows: (N, H, W, C) -> (N, H/2, W/2, C).

    The gradient of a tie goes wholly to the first element in row-major order, as PyTorch's.

    Raises:
        ValueError: x is not four-dimensional, or H or W is odd.
    """
    return _max_pool_windows(split_windows(x), NHWC_AXES)


_Shape = tuple[int, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_of_taps(x: jax.Array, axes: _Shape, window: _Shape, strides: _Shape) -> jax.Array:
    return functools.reduce(jnp.maximum, taps(x, axes, window, strides))


def _taps_fwd(
    x: jax.Array, axes: _Shape, window: _Shape, strides: _Shape
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    read = taps(x, axes, window, strides)
    largest = functools.reduce(jnp.maximum, read)
    square = jnp.full(largest.shape, (len(read) - 1) ** 2, jnp.float32)
    for i in reversed(range(len(read) - 1)):
        square = jnp.where(read[i] == largest, i**2, square)
    # Only the input's shape and dtype are needed; XLA keeps nothing of an unused array.
    return largest, (_stored_root(square), x)


def _taps_bwd(
    axes: _Shape,
    window: _Shape,
    strides: _Shape,
    saved: tuple[jax.Array, jax.Array],
    g: jax.Array,
) -> tuple[jax.Array]:
    position, x = saved
    parts = [jnp.where(position == i, g, 0) for i in range(math.prod(window))]
    pull = jax.linear_transpose(lambda x: taps(x, axes, window, strides), x)
    return tuple(pull(parts))


_max_of_taps.defvjp(_taps_fwd, _taps_bwd)


def max_pool(x: jax.Array, axes: _Shape, window: _Shape, strides: _Shape) -> jax.Array:
    """Maximum over windows; the gradient of a tie goes to the first element in row-major order.

    Args:
        x: any shape, padded.
        axes: that the window slides over.
        window: its size along each of them.
        strides: its step along each of them.

    Returns:
        x's shape, with the number of windows along `axes`.
    """
    if axes == (1, 2) and window == strides == (2, 2) and x.ndim == 4:
        return max_pool_2x2(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])
    return _max_of_taps(x, axes, window, strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def max_pool_of(
    function: Elementwise, axes: tuple[int, int], x: jax.Array, others: Sequence[jax.Array]
) -> jax.Array:
    """Maximum of an elementwise function over windows; its gradient is of the maxima alone.

    Args:
        function: of an array of any shape (..., C), and of `others`.
        axes: of the window's row and column.
        x: (..., C), with two axes of size 2.
        others: (C,) or ().

    Returns:
        x's shape without these axes.
    """
    return _max(function(x, others), axes)


def _max_pool_of_fwd(
    function: Elementwise, axes: tuple[int, int], x: jax.Array, others: Sequence[jax.Array]
) -> tuple[jax.Array, Any]:
    largest, position = _max_pool_fwd(function(x, others), axes)
    return largest, (position, x, others)


def _max_pool_of_bwd(
    function: Elementwise, axes: tuple[int, int], saved: Any, g: jax.Array
) -> tuple[Any, Any]:
    position, x, others = saved
    d_largest, d_others = jax.vjp(function, gather(position, x, axes), others)[1](g)
    return scatter(position, d_largest, axes), d_others


max_pool_of.defvjp(_max_pool_of_fwd, _max_pool_of_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relu_max_pool_windows(x: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """`bias_relu_max_pool_windows` without a bias."""
    return jnp.maximum(_max(x, axes), 0)


def relu_max_and_position(x: jax.Array, axes: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Apply ReLU, and find the maximum over `axes` and its position in the window.

    Returns:
        Two arrays without the window's axes. The second has 0 to 3 in row-major order, or `NOWHERE`
        for a maximum that ReLU cuts.
    """
    largest = _max(x, axes)
    position = jnp.where(largest > 0, _first_max(x, largest, axes), NOWHERE**2)
    return jnp.maximum(largest, 0), _stored_root(position)


relu_max_pool_windows.defvjp(relu_max_and_position, _pool_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def bias_relu_max_pool_windows(x: jax.Array, bias: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """`relu(max(x + bias))` over the windows, in value and gradient (ReLU's gradient at 0 is 0).

    max(relu(.)) = relu(max(.)), and where the maximum is positive both have the same first
    largest element; where it is not, both gradients are 0. ReLU then acts on a quarter of the
    data, and the bias's gradient is a sum over a quarter.

    Args:
        x: (..., C), with two axes of size 2.
        bias: (C,).
        axes: of the window's row and column.

    Returns:
        x's shape without these axes.
    """
    return jnp.maximum(_max(x + bias, axes), 0)


def _bias_fwd(x: jax.Array, bias: jax.Array, axes: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    return relu_max_and_position(x + bias, axes)


def _bias_bwd(
    axes: tuple[int, int], position: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # For both: XLA keeps it for the sum, and would make g anew for each corner.
    passed = jnp.where(position == NOWHERE, 0, g)
    return scatter(position, passed, axes), jnp.sum(passed, range(g.ndim - 1))


bias_relu_max_pool_windows.defvjp(_bias_fwd, _bias_bwd)


def relu_max_pool_2x2(x: jax.Array) -> jax.Array:
    """`max_pool_2x2(relu(x))`, in value and gradient: (N, H, W, C) -> (N, H/2, W/2, C).

    Raises:
        ValueError: x is not four-dimensional, or H or W is odd.
    """
    return relu_max_pool_windows(split_windows(x), NHWC_AXES)
