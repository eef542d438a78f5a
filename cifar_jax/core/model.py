"""The report's CNN, with or without normalisation."""

import math
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from cifar_jax.core.norms import norm_layer, wide

# PyTorch draws weights and biases of Conv2d and Linear from U(-1/sqrt(fan_in), 1/sqrt(fan_in)):
# kaiming_uniform with a = sqrt(5) (He et al. 2015, arXiv 1502.01852).
kernel_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def bias_init(fan_in: int) -> Initializer:
    """Return an initializer that draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv3x3(x: jax.Array, features: int, name: str) -> jax.Array:
    """Apply a 3x3 convolution: (N, H, W, C) -> (N, H, W, features), stride 1, with bias."""
    bias = bias_init(9 * x.shape[-1])
    layer = nn.Conv(
        features, (3, 3), dtype=x.dtype, kernel_init=kernel_init, bias_init=bias, name=name
    )
    return layer(x)


def dense(x: jax.Array, features: int, name: str) -> jax.Array:
    """Apply a dense layer: (N, C) -> (N, features), with bias."""
    bias = bias_init(x.shape[-1])
    layer = nn.Dense(features, dtype=x.dtype, kernel_init=kernel_init, bias_init=bias, name=name)
    return layer(x)


class CNN(nn.Module):
    """Three blocks of [convolution, (norm), activation, 2x2 max pooling], then two dense layers.

    Layers have explicit names. A parameter's initial value depends on its name and the key alone,
    so two arms start from the same values in the layers that they share.

    Attributes:
        num_classes: width of the last layer.
        norm: "none", "batch", "layer", "instance" or "group". "instance" leaves the dense layer
            without a norm, because it has no positions.
        activation: after each norm, elementwise.
        dropout: rate before the last layer.
        widths: channels of the convolutions.
        hidden: width of the first dense layer.
        norm_groups: of norm "group"; divides all widths.
        norm_momentum: of norm "batch", see `BatchNorm`.
        frozen_norms: names of norm layers that train as they evaluate: "norm1", ...
    """

    num_classes: int = 10
    norm: str = "none"
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dropout: float = 0.5
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 256
    norm_groups: int = 8
    norm_momentum: float = 0.9
    frozen_norms: tuple[str, ...] = ()

    HEAD: ClassVar[str] = "dense2"

    def normalise(self, x: jax.Array, index: int, train: bool) -> jax.Array:
        """Apply the norm layer `norm<index>`, if the network has one there."""
        if self.norm == "none" or (self.norm == "instance" and x.ndim == 2):
            return x
        name = f"norm{index}"
        layer = norm_layer(self.norm, name, groups=self.norm_groups, momentum=self.norm_momentum)
        y: jax.Array = layer(x, train=train and name not in self.frozen_norms)
        return y

    def block(self, x: jax.Array, index: int, train: bool) -> jax.Array:
        """Apply block `index`, counted from 1: (N, H, W, C) -> (N, H/2, W/2, widths[index - 1])."""
        x = conv3x3(x, self.widths[index - 1], f"conv{index}")
        x = self.activation(self.normalise(x, index, train))
        return nn.max_pool(x, (2, 2), (2, 2))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Compute the logits of a batch.

        Args:
            x: float (N, H, W, C), normalised; H and W divisible by 2 ** len(widths).
            train: use dropout (random numbers "dropout") and the batch's statistics.

        Returns:
            (N, num_classes), float32 or wider. The other layers compute in the dtype of x.
        """
        for index in range(1, len(self.widths) + 1):
            x = self.block(x, index, train)
        x = dense(x.reshape(x.shape[0], -1), self.hidden, "dense1")
        x = self.activation(self.normalise(x, len(self.widths) + 1, train))
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return dense(wide(x), self.num_classes, "dense2")
