"""The layers that cost time, as pure functions."""

from cifar_jax.kernels.batch_norm import (
    batch_norm,
    batch_norm_relu_max_pool_2x2,
    batch_norm_relu_max_pool_windows,
)
from cifar_jax.kernels.pooling import (
    bias_relu_max_pool_windows,
    max_pool_2x2,
    relu_max_pool_2x2,
    relu_max_pool_windows,
)
from cifar_jax.models.convolution import Windows, conv3x3, conv3x3_windows

__all__ = [
    "Windows",
    "batch_norm",
    "batch_norm_relu_max_pool_2x2",
    "batch_norm_relu_max_pool_windows",
    "bias_relu_max_pool_windows",
    "conv3x3",
    "conv3x3_windows",
    "max_pool_2x2",
    "relu_max_pool_2x2",
    "relu_max_pool_windows",
]
