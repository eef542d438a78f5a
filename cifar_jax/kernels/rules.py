"""The table: which operations of a traced model get another body."""

import functools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from cifar_jax.kernels import chains, convolution, pooling
from cifar_jax.kernels.chains import CHAIN, Chain, is_relu
from cifar_jax.kernels.relu import relu
from cifar_jax.kernels.rewrite import Rule
from cifar_jax.kernels.taps import taps

SLOW_IN_LOOPS = ("conv_general_dilated", "reduce_window_max", "reduce_window_sum")
"""Operations whose gradients XLA's CPU backend computes slowly, above all in a loop."""


def _convolution(platform: str, eqn: JaxprEqn, x: jax.Array, kernel: jax.Array) -> Any:
    """Convolution of any rank and order of axes; None if the dtypes differ or are not floating."""
    params = eqn.params
    dtype = params["preferred_element_type"]
    if (
        not jnp.issubdtype(x.dtype, jnp.floating)
        or x.dtype != kernel.dtype
        or dtype not in (None, x.dtype)
        or params["batch_group_count"] != 1
        or 0 in (*x.shape, *kernel.shape)
    ):
        return None
    numbers = params["dimension_numbers"]
    batch, channels, *spatial = numbers.lhs_spec
    x = x.transpose(batch, *spatial, channels)
    out, into, *window = numbers.rhs_spec
    kernel = kernel.transpose(*window, into, out)
    padding = tuple(params["padding"])
    if set(params["lhs_dilation"]) != {1}:  # A transposed convolution: zeros between elements.
        inner = [
            (low, high, step - 1)
            for (low, high), step in zip(padding, params["lhs_dilation"], strict=True)
        ]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
        padding = ((0, 0),) * len(spatial)
    geometry = convolution.Geometry(
        tuple(params["window_strides"]),
        padding,
        tuple(params["rhs_dilation"]),
        params["feature_group_count"],
        params["precision"],
    )
    y = convolution.conv(platform, x, kernel, geometry)
    order = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return jnp.moveaxis(y, range(y.ndim), order)


def _windows(eqn: JaxprEqn, x: jax.Array, fill: float) -> tuple[jax.Array, list[int]] | None:
    """The padded input of a pooling, and the axes that it slides over.

    None if the windows are dilated, or if x is empty or has no floating dtype.
    """
    params = eqn.params
    dilation = (*params["base_dilation"], *params["window_dilation"])
    if set(dilation) != {1} or not jnp.issubdtype(x.dtype, jnp.floating) or 0 in x.shape:
        return None
    sizes = zip(params["window_dimensions"], params["window_strides"], strict=True)
    axes = [axis for axis, (size, stride) in enumerate(sizes) if size > 1 or stride > 1]
    if any(low or high for low, high in params["padding"]):
        config = [(low, high, 0) for low, high in params["padding"]]
        x = lax.pad(x, jnp.asarray(fill, x.dtype), config)
    return x, axes


def _max_pool(eqn: JaxprEqn, x: jax.Array) -> Any:
    """Maximum over the windows of `_windows`."""
    found = _windows(eqn, x, -math.inf)
    if found is None:
        return None
    x, axes = found
    window = tuple(eqn.params["window_dimensions"][axis] for axis in axes)
    strides = tuple(eqn.params["window_strides"][axis] for axis in axes)
    return pooling.max_pool(x, tuple(axes), window, strides)


def _sum_pool(eqn: JaxprEqn, x: jax.Array) -> Any:
    """Sum over the windows of `_windows`."""
    found = _windows(eqn, x, 0)
    if found is None:
        return None
    x, axes = found
    for axis in axes:  # One axis after the other: fewer sums.
        size, stride = (eqn.params[name][axis] for name in ("window_dimensions", "window_strides"))
        if size == stride:
            whole = x.shape[axis] // size
            x = lax.slice_in_dim(x, 0, whole * size, axis=axis)
            x = x.reshape(*x.shape[:axis], whole, size, *x.shape[axis + 1 :]).sum(axis + 1)
        else:
            x = functools.reduce(jnp.add, taps(x, [axis], [size], [stride]))
    return x


def _relu(eqn: JaxprEqn, x: jax.Array, *others: jax.Array) -> Any:
    """ReLU; None for another function with a derivative of its own."""
    found = not others and is_relu(eqn) and jnp.issubdtype(x.dtype, jnp.floating)
    return relu(x) if found else None


def _chain(platform: str, chain: Chain, x: jax.Array, kernel: jax.Array, *others: Any) -> Any:
    """Convolution, elementwise layers and pooling in the layout of the convolution's products.

    x is (N, H, W, Cin), the kernel (3, 3, Cin, Cout), and the result (N, H/2, W/2, Cout). `others`
    are the values of `chain.others`.
    """
    windows = convolution.conv3x3_windows(platform, x, kernel)
    variables = [chain.conv.outvars[0], *chain.others]
    result = chain.pool.invars[0]

    def layers(values: jax.Array, others: Sequence[jax.Array]) -> jax.Array:
        wide = [jnp.broadcast_to(x, values.shape) if x.ndim else x for x in others]
        y: jax.Array = chains.apply(chain.layers, variables, [values, *wide], result)
        return y

    vectors = [jnp.asarray(x).reshape(jnp.shape(x)[-1:]) for x in others]
    return windows.image(pooling.max_pool_of(layers, windows.axes, windows.values, vectors))


def rules(platform: str) -> Mapping[str, Rule]:
    """Return the rule of each primitive that has another body on a platform."""
    table: dict[str, Rule] = {
        "conv_general_dilated": partial(_convolution, platform),
        "reduce_window_max": _max_pool,
    }
    if platform == "cpu":
        table |= {
            "reduce_window_sum": _sum_pool,
            "custom_jvp_call": _relu,
            CHAIN: partial(_chain, platform),
        }
    return table
