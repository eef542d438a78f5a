"""The layers that cost time, as pure functions on NHWC arrays."""

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.models.convolution import conv3x3

__all__ = ["batch_norm", "conv3x3", "max_pool_2x2", "relu_max_pool_2x2"]


def _windows(x: jax.Array) -> list[jax.Array]:
    """The four elements of each 2x2 window in row-major order, each (N, H/2, W/2, C)."""
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"2x2 pooling needs (N, H, W, C) with even H and W, got {x.shape}")
    n, h, w, c = x.shape
    pairs = x.reshape(n, h // 2, 2, w // 2, 2, c)
    return [pairs[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]


def _route(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
    """Send g to the first element of each window of x equal to y: (N, H, W, C)."""
    n, h, w, c = x.shape
    taken = jnp.zeros(y.shape, bool)
    parts = []
    for part in _windows(x):
        hit = (part == y) & ~taken
        parts.append(jnp.where(hit, g, 0))
        taken |= hit
    rows = [jnp.stack(parts[:2], axis=3), jnp.stack(parts[2:], axis=3)]
    return jnp.stack(rows, axis=2).reshape(n, h, w, c)


@jax.custom_vjp
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows: (N, H, W, C) -> (N, H/2, W/2, C).

    The gradient of a tie goes wholly to the first element in row-major order, as PyTorch's.

    Raises:
        ValueError: H or W is odd.
    """
    a, b, c, d = _windows(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _max_pool_fwd(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool_2x2(x)
    return y, (x, y)


def _max_pool_bwd(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = saved
    return (_route(x, y, g),)


max_pool_2x2.defvjp(_max_pool_fwd, _max_pool_bwd)


def relu_max_pool_2x2(x: jax.Array) -> jax.Array:
    """`max_pool_2x2(relu(x))`, in value and gradient (ReLU's gradient at 0 is 0).

    max(relu(.)) = relu(max(.)), and where the maximum is positive both have the same first
    largest element; where it is not, both gradients are 0. ReLU then acts on a quarter of the data.
    """
    return jax.nn.relu(max_pool_2x2(x))


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise x, (..., C), by its own statistics over all axes but the last.

    Returns:
        The normalised x, its mean (C,) and its biased variance (C,).
    """
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    var = jnp.mean(jnp.square(x - mean), axes)
    return (x - mean) * (scale * lax.rsqrt(var + eps)) + bias, mean, var
