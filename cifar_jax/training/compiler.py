"""How the programs of training are compiled."""

from cifar_jax.kernels.compiler import compiler_options, jit, known_options

__all__ = ["compiler_options", "jit", "known_options"]
