"""`enable_x64`, under the name that this version of JAX has for it."""

try:
    from jax import enable_x64  # since 0.8
except ImportError:
    from jax.experimental import enable_x64

__all__ = ["enable_x64"]
