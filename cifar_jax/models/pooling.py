"""2x2 max pooling whose backward pass is one elementwise sweep, not a select-and-scatter."""

import jax
import jax.numpy as jnp

NOWHERE = 4
"""Position that no window has: none of its elements gets a gradient."""


def windows(x: jax.Array) -> list[jax.Array]:
    """The four elements of each 2x2 window in row-major order, each (N, H/2, W/2, C)."""
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"2x2 pooling needs (N, H, W, C) with even H and W, got {x.shape}")
    n, h, w, c = x.shape
    pairs = x.reshape(n, h // 2, 2, w // 2, 2, c)
    return [pairs[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]


def _max(x: jax.Array) -> jax.Array:
    a, b, c, d = windows(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _first_max(x: jax.Array, largest: jax.Array) -> jax.Array:
    """Square of the row-major position of the first largest element of each window."""
    a, b, c, _ = (part == largest for part in windows(x))
    return jnp.where(a, 0, jnp.where(b, 1, jnp.where(c, 4, 9))).astype(x.dtype)


def _stored_root(square: jax.Array) -> jax.Array:
    """The position itself (roots of small squares are exact), computed in the forward pass.

    XLA on the CPU prefers repeating cheap arithmetic to keeping its result, here four times over
    for the four elements of a window, and ignores `optimization_barrier`. It never repeats a root.
    """
    return jnp.sqrt(square)


def scatter(position: jax.Array, g: jax.Array) -> jax.Array:
    """g at its window's position and zero elsewhere: (N, H, W, C) from (N, H/2, W/2, C)."""
    n, h, w, c = g.shape
    here = jnp.arange(4, dtype=position.dtype).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(position[:, :, None, :, None] == here, g[:, :, None, :, None], 0)
    return spread.reshape(n, 2 * h, 2 * w, c)


def gather(position: jax.Array, x: jax.Array) -> jax.Array:
    """The element of x, (N, H, W, C), at its window's position, zero where that is `NOWHERE`."""
    return sum(
        (jnp.where(position == i, part, 0) for i, part in enumerate(windows(x))),
        start=jnp.zeros((), x.dtype),
    )


@jax.custom_vjp
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows: (N, H, W, C) -> (N, H/2, W/2, C).

    The gradient of a tie goes wholly to the first element in row-major order, as PyTorch's.

    Raises:
        ValueError: x is not four-dimensional, or H or W is odd.
    """
    return _max(x)


def _max_pool_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = _max(x)
    return y, _stored_root(_first_max(x, y))


def _pool_bwd(position: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (scatter(position, g),)


max_pool_2x2.defvjp(_max_pool_fwd, _pool_bwd)


@jax.custom_vjp
def relu_max_pool_2x2(x: jax.Array) -> jax.Array:
    """`max_pool_2x2(relu(x))`, in value and gradient (ReLU's gradient at 0 is 0).

    max(relu(.)) = relu(max(.)), and where the maximum is positive both have the same first
    largest element; where it is not, both gradients are 0. ReLU then acts on a quarter of the data.

    Raises:
        ValueError: x is not four-dimensional, or H or W is odd.
    """
    return jnp.maximum(_max(x), 0)


def relu_max_and_position(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`relu_max_pool_2x2(x)` and where each of its values stands in its window.

    Returns:
        Two arrays (N, H/2, W/2, C); the second holds 0 to 3 in row-major order, `NOWHERE` where
        ReLU cut.
    """
    largest = _max(x)
    position = jnp.where(largest > 0, _first_max(x, largest), NOWHERE**2)
    return jnp.maximum(largest, 0), _stored_root(position)


relu_max_pool_2x2.defvjp(relu_max_and_position, _pool_bwd)
