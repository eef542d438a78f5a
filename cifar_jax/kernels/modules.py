"""Other bodies for whole Flax modules; parameters, statistics and results stay the same."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.core.model import CNN
from cifar_jax.core.norms import EPSILON, BatchNorm, wide
from cifar_jax.kernels import batch_norm, convolution, pooling


def _update_statistics(
    module: nn.Module, name: str | None, momentum: float, mean: jax.Array, var: jax.Array
) -> None:
    """Move the running statistics of the module, or of its sub-module `name`, to a batch's."""
    if module.is_initializing():
        return
    stats = module.variables["batch_stats"]
    stats = stats if name is None else stats[name]
    new = {
        key: momentum * stats[key] + (1 - momentum) * value
        for key, value in (("mean", mean), ("var", var))
    }
    if name is None:
        for key, value in new.items():
            module.put_variable("batch_stats", key, value)
    else:
        module.put_variable("batch_stats", name, new)


def _as_wide(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """The parameter in the dtype that statistics of x have."""
    return parameter.astype(wide(x).dtype)


def _unbiased(var: jax.Array, count: int) -> jax.Array:
    """Return the unbiased variance of `count` values, from the biased one."""
    return var * (count / (count - 1))


def _own_batch_norm(platform: str, norm: BatchNorm, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalise x, (..., C), as `core.norms.BatchNorm` does in training."""
    params = norm.variables["params"]
    scale, bias = _as_wide(params["scale"], x), _as_wide(params["bias"], x)
    y, mean, var = batch_norm.batch_norm(x, scale, bias, EPSILON, platform)
    count = x.size // x.shape[-1]
    _update_statistics(norm, None, norm.momentum, mean, _unbiased(var, count))
    return y


def _has_own_batch_norm(norm: nn.Module, x: jax.Array, *, train: bool) -> bool:
    """Return whether `_own_batch_norm` computes the same as this call of a module."""
    return train and norm.has_variable("params", "scale")


def _flax_batch_norm(platform: str, norm: nn.BatchNorm, x: jax.Array, **_: Any) -> jax.Array:
    """Normalise x, (..., C), as `flax.linen.BatchNorm` does in training."""
    params = norm.variables.get("params", {})
    scale = _as_wide(params.get("scale", jnp.ones(x.shape[-1])), x)
    bias = _as_wide(params.get("bias", jnp.zeros(x.shape[-1])), x)
    y, mean, var = batch_norm.batch_norm(x, scale, bias, norm.epsilon, platform)
    _update_statistics(norm, None, norm.momentum, mean, var)
    return y


def _has_flax_batch_norm(
    norm: nn.BatchNorm,
    x: jax.Array,
    use_running_average: bool | None = None,
    *,
    mask: jax.Array | None = None,
) -> bool:
    """Return whether `_flax_batch_norm` computes the same as this call of a module."""
    running = nn.merge_param("use_running_average", norm.use_running_average, use_running_average)
    keeps_dtype = norm.dtype is not None or jnp.promote_types(x.dtype, norm.param_dtype) == x.dtype
    return (
        not running
        and mask is None
        and norm.axis in (-1, x.ndim - 1)
        and norm.axis_name is None
        and norm.has_variable("batch_stats", "mean")
        and keeps_dtype
        and norm.dtype in (None, x.dtype)
        and norm.force_float32_reductions
    )


def _group_norm(norm: nn.GroupNorm, x: jax.Array, **_: Any) -> jax.Array:
    """Normalise x, (N, ..., C), as `flax.linen.GroupNorm` does."""
    params = norm.variables.get("params", {})
    n, channels, axes = len(x), x.shape[-1], tuple(range(1, x.ndim - 1))
    size = norm.group_size or channels // (norm.num_groups or 1)

    def mean_of_groups(x: jax.Array) -> jax.Array:
        # Positions first, for all channels at once: what is read together stays long enough for
        # the vector units.
        grouped = jnp.mean(x, axes).reshape(n, -1, size)
        mean = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
        return jnp.expand_dims(mean.reshape(n, channels), axes)

    centred = wide(x) - mean_of_groups(wide(x))
    factor = lax.rsqrt(mean_of_groups(jnp.square(centred)) + norm.epsilon)
    y = centred * (factor * params.get("scale", 1)) + params.get("bias", 0)
    return y.astype(norm.dtype or jnp.result_type(x, *params.values()))


def _has_group_norm(norm: nn.GroupNorm, x: jax.Array, *, mask: jax.Array | None = None) -> bool:
    """Return whether `_group_norm` computes the same as this call of a module.

    Flax itself refuses groups that do not fit, and parameters that are missing.
    """
    one_is_given = (norm.num_groups is None) != (norm.group_size is None)
    return (
        mask is None
        and not norm.use_fast_variance
        and norm.axis_name is None
        and norm.reduction_axes is None
        and norm.force_float32_reductions
        and norm.dtype in (None, x.dtype)
        and x.ndim > 1
        and one_is_given
        and x.shape[-1] % (norm.group_size or norm.num_groups or 1) == 0
        and norm.has_variable("params", "scale") == norm.use_scale
        and norm.has_variable("params", "bias") == norm.use_bias
    )


def _block(platform: str, cnn: CNN, x: jax.Array, index: int, train: bool) -> jax.Array:
    """Block `index` of a CNN: convolution, norm, ReLU and pooling.

    x is (N, H, W, C), the result (N, H/2, W/2, widths[index - 1]). The normalised images are never
    stored.
    """
    conv, name = cnn.variables["params"][f"conv{index}"], f"norm{index}"
    kernel, bias = (conv[key].astype(x.dtype) for key in ("kernel", "bias"))
    with jax.named_scope(f"conv{index}"):
        windows = convolution.conv3x3_windows(platform, x, kernel)
        if cnn.norm == "none":
            y = pooling.bias_relu_max_pool_windows(windows.values, bias, windows.axes)
            return windows.image(y)
    with jax.named_scope(name):
        params, stats = cnn.variables["params"][name], cnn.variables["batch_stats"][name]
        scale, offset = (_as_wide(params[key], x) for key in ("scale", "bias"))
        if not train or name in cnn.frozen_norms:
            factor = scale * lax.rsqrt(stats["var"] + EPSILON)
            shift = offset + (bias - stats["mean"]) * factor
            normalised = (windows.values * factor + shift).astype(x.dtype)
            return windows.image(pooling.relu_max_pool_windows(normalised, windows.axes))
        y, mean, var = batch_norm.batch_norm_relu_max_pool_windows(
            windows.values, scale, offset, EPSILON, windows.axes, platform
        )
        # The convolution's bias cancels everywhere but in the running mean.
        count = windows.values.size // len(bias)
        _update_statistics(cnn, name, cnn.norm_momentum, mean + bias, _unbiased(var, count))
        return windows.image(y)


def _has_block(cnn: CNN, x: jax.Array, index: int, train: bool) -> bool:
    """Return whether `_block` computes the same as this call of `CNN.block`."""
    return (
        type(cnn).block is CNN.block
        and type(cnn).normalise is CNN.normalise
        and cnn.norm in ("none", "batch")
        and cnn.activation is nn.relu
        and x.shape[1] % 2 == x.shape[2] % 2 == 0
        and cnn.has_variable("params", f"conv{index}")
        and not cnn.is_mutable_collection("intermediates")
    )


def interceptor(platform: str) -> Callable[..., Any]:
    """Return an interceptor of Flax's method calls; see `flax.linen.intercept_methods`."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, method = context.module, context.method_name
        if module.is_initializing():
            return call(*args, **kwargs)
        if method == "block" and isinstance(module, CNN) and _has_block(module, *args, **kwargs):
            return _block(platform, module, *args, **kwargs)
        if method == "__call__":
            if type(module) is BatchNorm and _has_own_batch_norm(module, *args, **kwargs):
                return _own_batch_norm(platform, module, *args, **kwargs)
            if type(module) is nn.BatchNorm and _has_flax_batch_norm(module, *args, **kwargs):
                return _flax_batch_norm(platform, module, *args, **kwargs)
            if type(module) is nn.GroupNorm and _has_group_norm(module, *args, **kwargs):
                return _group_norm(module, *args, **kwargs)
        return call(*args, **kwargs)

    return intercept
