"""The layers that cost time, as pure functions on NHWC arrays."""

from cifar_jax.models.batch_norm import batch_norm, batch_norm_relu_max_pool_2x2
from cifar_jax.models.convolution import conv3x3
from cifar_jax.models.pooling import max_pool_2x2, relu_max_pool_2x2

__all__ = [
    "batch_norm",
    "batch_norm_relu_max_pool_2x2",
    "conv3x3",
    "max_pool_2x2",
    "relu_max_pool_2x2",
]
