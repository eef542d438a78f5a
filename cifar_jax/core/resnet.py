"""Residual networks for 32x32 images, and the same networks without shortcuts.

He et al. 2016 (arXiv 1512.03385): ResNet-20, 32 and 56 and their plain nets are those of section
4.2. ResNet-18 is that of table 1 with a stem for small images (3x3, stride 1, no max pooling).

Modules have torchvision's names, with `norm` for `bn`: its `layer2.0.downsample.0.weight` is
`params["layer2"]["0"]["downsample"]["0"]["kernel"]` here. Initial values are torchvision's too:
kernels from N(0, 2 / fan_out) (He et al. 2015, arXiv 1502.01852, equation 14). Biases of
convolutions, which only networks without norms have, start at zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cifar_jax.core.model import torch_init
from cifar_jax.core.norms import Norm, norm_layer, wide

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclass(frozen=True)
class Layers:
    """What all blocks of a network share; attributes as in `ResNet`."""

    norm: Norm
    shortcut: str
    zero_init: bool
    norm_groups: int
    norm_momentum: float
    frozen_norms: tuple[str, ...]

    def conv(self, x: Array, features: int, size: int, stride: int, name: str) -> Array:
        """Convolve with PyTorch's padding: (N, H, W, C) -> (N, H / stride, W / stride, features).

        H / stride and W / stride are rounded up. There is a bias if no norm follows.
        """
        conv = partial(nn.Conv, use_bias=self.norm == "none", kernel_init=he_normal)
        return conv(features, (size, size), stride, size // 2, dtype=x.dtype, name=name)(x)

    def normalise(
        self, parent: nn.Module, name: str, x: Array, train: bool, zero_scale: bool = False
    ) -> Array:
        """Apply the norm layer `name` of `parent`, if the network has norms."""
        if self.norm == "none":
            return x
        scale_init = nn.initializers.zeros if zero_scale else nn.initializers.ones
        layer = norm_layer(self.norm, name, self.norm_groups, self.norm_momentum, scale_init)
        frozen = ".".join((*parent.path, name)) in self.frozen_norms
        return layer(x, train=train and not frozen)


class Downsample(nn.Module):
    """The projection shortcut, He et al.'s option B: 1x1 convolution and norm."""

    layers: Layers
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Project: (N, H, W, C) -> (N, H / stride, W / stride, features)."""
        x = self.layers.conv(x, self.features, 1, self.stride, "0")
        return self.layers.normalise(self, "1", x, train)


class Block(nn.Module):
    """Two 3x3 convolutions, the first with the stride, and the shortcut around them."""

    layers: Layers
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Apply the block: (N, H, W, C) -> (N, H / stride, W / stride, features)."""
        layers = self.layers
        y = layers.conv(x, self.features, 3, self.stride, "conv1")
        y = nn.relu(layers.normalise(self, "norm1", y, train))
        y = layers.conv(y, self.features, 3, 1, "conv2")
        y = layers.normalise(self, "norm2", y, train, layers.zero_init)
        if layers.shortcut == "none":
            return nn.relu(y)
        if x.shape != y.shape and layers.shortcut == "project":
            project = Downsample(layers, self.features, self.stride, name="downsample")
            x = project(x, train=train)
        elif x.shape != y.shape:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
        return nn.relu(y + x)


class Stage(nn.Module):
    """Blocks "0", "1", ... of the same width; the first has the stride.

    Attributes:
        block: makes a block of layers, features, stride and name.
    """

    layers: Layers
    blocks: int
    features: int
    stride: int
    block: Callable[..., nn.Module] = Block

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Apply the blocks: (N, H, W, C) -> (N, H / stride, W / stride, features)."""
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = self.block(self.layers, self.features, stride, name=str(i))(x, train=train)
        return x


class ResNet(nn.Module):
    """3x3 stem, stages of blocks, mean over the positions, dense layer.

    Attributes:
        num_classes: width of the last layer.
        norm: after each convolution, see `CNN`.
        blocks: of each stage.
        widths: channels of each stage; the stem has those of the first. From the second stage on,
            each halves height and width.
        shortcut: "pad" (He et al.'s option A: skip positions, add zero channels), "project"
            (option B) or "none" (a plain net).
        zero_init: start the scale of each block's last norm at 0. Then the block starts as its
            shortcut (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
        dropout: rate before the last layer.
        norm_groups, norm_momentum: see `CNN`.
        frozen_norms: paths of norm layers, such as "layer1.0.norm1", that train with their running
            statistics.
    """

    num_classes: int = 10
    norm: Norm = "batch"
    blocks: tuple[int, ...] = (3, 3, 3)
    widths: tuple[int, ...] = (16, 32, 64)
    shortcut: str = "pad"
    zero_init: bool = False
    dropout: float = 0.0
    norm_groups: int = 8
    norm_momentum: float = 0.9
    frozen_norms: tuple[str, ...] = ()

    HEAD: ClassVar[str] = "fc"  # name of the last layer

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Return the logits, (N, num_classes), of x, float (N, H, W, C); see `CNN.__call__`."""
        names = [field.name for field in fields(Layers)]
        layers = Layers(*(getattr(self, name) for name in names))
        x = layers.conv(x, self.widths[0], 3, 1, "conv1")
        x = nn.relu(layers.normalise(self, "norm1", x, train))
        for i, (blocks, features) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
            x = Stage(layers, blocks, features, min(i, 2), name=f"layer{i}")(x, train=train)
        x = jnp.mean(wide(x), axis=(1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, name="fc", **torch_init(x.shape[-1]))(x)
