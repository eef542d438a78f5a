"""The CNN of the course report, with or without normalisation."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cifar_jax.core.norms import Norm, norm_layer, wide


def torch_init(fan_in: int) -> dict[str, Any]:
    """Return PyTorch's initializers of a convolution or dense layer, for its kernel and its bias.

    Both draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): kaiming_uniform with a = sqrt(5) (He et al.
    2015, arXiv 1502.01852). `fan_in` is kernel height * kernel width * input channels.
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": init, "bias_init": init}


class CNN(nn.Module):
    """Three blocks of [convolution, (norm), activation, 2x2 max pooling], then two dense layers.

    Layers have explicit names. A parameter's initial value depends only on its name and the key.
    So networks with different norms share the initial values of their common layers.

    Attributes:
        num_classes: width of the last layer.
        norm: "none", or as in `norm_layer`. The dense layer has no positions, so no "instance".
        activation: after each norm, elementwise.
        dropout: rate before the last layer.
        widths: channels of the convolutions.
        hidden: width of the first dense layer.
        norm_groups: of norm "group"; divides all widths.
        norm_momentum: of norm "batch", see `BatchNorm`.
        frozen_norms: norm layers, such as "norm1", that train with their running statistics.
    """

    num_classes: int = 10
    norm: Norm = "none"
    activation: Callable[[Array], Array] = nn.relu
    dropout: float = 0.5
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 256
    norm_groups: int = 8
    norm_momentum: float = 0.9
    frozen_norms: tuple[str, ...] = ()

    HEAD: ClassVar[str] = "dense2"  # name of the last layer

    def normalise(self, x: Array, index: int, train: bool) -> Array:
        """Apply the norm layer `norm<index>`, if the network has one there."""
        if self.norm == "none" or (self.norm == "instance" and x.ndim == 2):
            return x
        name = f"norm{index}"
        layer = norm_layer(self.norm, name, self.norm_groups, self.norm_momentum)
        return layer(x, train=train and name not in self.frozen_norms)

    def block(self, x: Array, index: int, train: bool) -> Array:
        """Apply block `index`, from 1: (N, H, W, C) -> (N, H // 2, W // 2, widths[index - 1])."""
        features, init = self.widths[index - 1], torch_init(9 * x.shape[-1])
        x = nn.Conv(features, (3, 3), dtype=x.dtype, name=f"conv{index}", **init)(x)
        x = self.activation(self.normalise(x, index, train))
        return nn.max_pool(x, (2, 2), (2, 2))

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return the logits, (N, num_classes), of x, float (N, H, W, C), normalised.

        H and W are at least 2 ** len(widths). With `train`, use dropout (random numbers "dropout")
        and the batch's statistics. Logits are float32 or wider; other layers compute in x's dtype.
        """
        for index in range(1, len(self.widths) + 1):
            x = self.block(x, index, train)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self.hidden, dtype=x.dtype, name="dense1", **torch_init(x.shape[-1]))(x)
        x = self.activation(self.normalise(x, len(self.widths) + 1, train))
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, name="dense2", **torch_init(self.hidden))(wide(x))
