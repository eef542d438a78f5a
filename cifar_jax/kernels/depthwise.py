"""Depthwise convolution as a sum of shifted products."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.kernels.taps import taps

_Shape = tuple[int, ...]


def conv(x: jax.Array, kernel: jax.Array, strides: _Shape, dilation: _Shape) -> jax.Array:
    """Convolve each channel by kernels of its own.

    Args:
        x: (N, ..., C), padded.
        kernel: (..., M * C), M kernels per channel, the dtype of x.
        strides: one a spatial axis.
        dilation: one a spatial axis.

    Returns:
        (N, ..., M * C), the dtype of x; channels in the order of the kernels.
    """
    if kernel.shape[-1] != x.shape[-1]:
        x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    return _conv(x, kernel, strides, dilation)


def _ones(kernel: jax.Array) -> jax.Array:
    """Return ones, (M * C,), whose value XLA does not know.

    XLA on the CPU would compute a sum again in each loop that reads it. It stores a quotient.
    """
    any_weight = kernel.reshape(-1, kernel.shape[-1])[0]
    return jnp.where(any_weight == any_weight, jnp.ones_like(any_weight), any_weight)


def _sum_of_shifts(x: jax.Array, kernel: jax.Array, strides: _Shape, dilation: _Shape) -> jax.Array:
    # Along the last axis first: two short sums, of columns and of rows, instead of a long one.
    *outer, last = range(1, x.ndim - 1)
    columns = taps(x, [last], kernel.shape[-2:-1], strides[-1:], dilation[-1:])
    terms = []
    for index in itertools.product(*map(range, kernel.shape[:-2])):
        weights = kernel[index]
        row = functools.reduce(jnp.add, [c * weights[j] for j, c in enumerate(columns)])
        for axis, i, stride, step in zip(outer, index, strides, dilation, strict=False):
            size = kernel.shape[axis - 1]
            row = taps(row, [axis], [size], [stride], [step])[i]
        terms.append(row)
    return functools.reduce(jnp.add, terms) / _ones(kernel)


_conv = jax.custom_vjp(_sum_of_shifts, nondiff_argnums=(2, 3))


def _forward(
    x: jax.Array, kernel: jax.Array, strides: _Shape, dilation: _Shape
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, strides, dilation), (x, kernel)


def _input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, strides: _Shape, dilation: _Shape
) -> jax.Array:
    if set(strides) != {1}:
        pull = jax.linear_transpose(lambda x: _sum_of_shifts(x, kernel, strides, dilation), x)
        (d_x,) = pull(g)
        return d_x
    reach = [step * (size - 1) for step, size in zip(dilation, kernel.shape[:-1], strict=True)]
    padded = jnp.pad(g, [(0, 0), *((r, r) for r in reach), (0, 0)])
    return _sum_of_shifts(padded, jnp.flip(kernel, range(kernel.ndim - 1)), strides, dilation)


def _kernel_gradient(
    g: jax.Array, x: jax.Array, window: _Shape, strides: _Shape, dilation: _Shape
) -> jax.Array:
    """Sum over one image a turn, elementwise: XLA's loops of sums are slower."""
    axes = range(x.ndim - 2)

    def add(i: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        image, gradient = (lax.dynamic_index_in_dim(a, i, keepdims=False) for a in (x, g))
        read = taps(image, axes, window, strides, dilation)
        return [s + tap * gradient for s, tap in zip(sums, read, strict=True)]

    zeros = [jnp.zeros(g.shape[1:], g.dtype)] * math.prod(window)
    sums = lax.fori_loop(0, len(x), add, zeros)
    return jnp.stack([jnp.sum(s, range(s.ndim - 1)) for s in sums]).reshape(*window, -1)


def _backward(
    strides: _Shape, dilation: _Shape, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    d_kernel = _kernel_gradient(g, x, kernel.shape[:-1], strides, dilation)
    return _input_gradient(g, x, kernel, strides, dilation), d_kernel


_conv.defvjp(_forward, _backward)
