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
        relu_max_pool: follow by ReLU and 2x2 max pooling, which together cost less.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    relu_max_pool: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise x, (..., C), over all axes but the last.

        Returns:
            The shape and dtype of x; with `relu_max_pool` (N, H/2, W/2, C) of x (N, H, W, C).
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            y = (x * factor + (bias - mean.value * factor)).astype(x.dtype)
            return layers.relu_max_pool_2x2(y) if self.relu_max_pool else y
        function = layers.batch_norm_relu_max_pool_2x2 if self.relu_max_pool else layers.batch_norm
        y, batch_mean, batch_var = function(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            count = x.size // channels
            unbiased = batch_var * (count / (count - 1))
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * unbiased
        return y
