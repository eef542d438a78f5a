"""Faster bodies for the layers of any Flax model, with equal parameters and equal results.

`fast(model)` is a value that a training step uses like the model. Its `apply` does two things.
First, it replaces whole modules (modules.py): Flax's `intercept_methods` hands over their calls.
Then it traces the forward pass and evaluates it again by a table of rules (rules.py). A
convolution becomes matrix products, a pooling becomes maxima of slices. JAX differentiates and
vectorises the result. Operations without a rule do not change.

To add a body for an operation, write a rule. It returns the result, or None where the body does not
fit. Name its primitive in `rules.rules`. To add one for a module, write a function of the
module and its arguments, and call it in `modules.interceptor`. Then add its case to
tests/kernels/test_kernels.py, which compares values, gradients and statistics.
"""

from cifar_jax.kernels.compiler import compiler_options, jit, jit_once
from cifar_jax.kernels.model import FastModel, fast, has_slow_layers, slow_layers

__all__ = [
    "FastModel",
    "compiler_options",
    "fast",
    "has_slow_layers",
    "jit",
    "jit_once",
    "slow_layers",
]
