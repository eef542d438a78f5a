"""Normalisation layers. The statistics live in `batch_stats`, handed in and handed back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.models import layers


class BatchNorm(nn.Module):
    """Batch Normalization (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2).

    As PyTorch's: the batch is normalised by its biased variance, the unbiased one (n / (n - 1))
    enters the running average. `flax.linen.BatchNorm` stores the biased one.

    Attributes:
        momentum: weight of the old running value; PyTorch calls 1 - momentum its momentum.
        epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise x, (..., C), over all axes but the last; the same shape and dtype."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            return (x * factor + (bias - mean.value * factor)).astype(x.dtype)
        y, batch_mean, batch_var = layers.batch_norm(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            count = x.size // channels
            unbiased = batch_var * (count / (count - 1))
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * unbiased
        return y
