"""PyTorch's initial distributions of Conv2d and Linear, which decide the report's numbers.

Both draw weights and biases from U(-1/sqrt(fan_in), +1/sqrt(fan_in)): kaiming_uniform with
a = sqrt(5) (He et al. 2015, arXiv 1502.01852) has the gain sqrt(1/3), and so this bound.
"""

import math

import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Initializer

# A uniform distribution of variance 1 / (3 fan_in) has the bound 1 / sqrt(fan_in).
kernel_init: Initializer = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def bias_init(fan_in: int) -> Initializer:
    """Initializer of a bias: U(-1/sqrt(fan_in), +1/sqrt(fan_in)), whatever its own shape."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
