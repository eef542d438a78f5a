"""ReLU that is computed once.

XLA's CPU backend repeats cheap arithmetic instead of storing its result. So each loop that reads a
network's residual stream would compute it again from its beginning, forwards and backwards.
"""

import jax
import jax.numpy as jnp
from jax import lax


def _stored(x: jax.Array) -> jax.Array:
    """Return x, which XLA then keeps in memory: it never repeats a quotient.

    The divisors are ones, which only LLVM finds out, when it compiles the loop.
    """
    bits = 8 * x.dtype.itemsize
    sign = lax.bitcast_convert_type(x, f"uint{bits}") >> (bits - 1)
    return x / (sign | 1).astype(x.dtype)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """`jax.nn.relu` in value and gradient (0 at 0); the gradient needs the result alone."""
    return _stored(jnp.maximum(x, 0))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _backward(y: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(y > 0, g, 0),)


relu.defvjp(_forward, _backward)
