"""Which numbers are kept in float32 where activations are shorter, as in bfloat16.

Micikevicius et al. 2018, "Mixed Precision Training" (arXiv 1710.03740), section 3: products take
short numbers and add them up in float32; statistics, reductions and the last layer are in float32,
and so are the parameters, of which a layer takes a short copy.
"""

import jax
import jax.numpy as jnp


def wide_dtype(x: jax.Array) -> jnp.dtype:
    """float32, or the dtype of x where that is wider."""
    return jnp.promote_types(x.dtype, jnp.float32)


def wide(x: jax.Array) -> jax.Array:
    """x in `wide_dtype`; x itself, and no operation, where it is so already."""
    return x.astype(wide_dtype(x))
