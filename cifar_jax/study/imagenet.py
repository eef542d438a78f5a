"""torchvision's ResNets for large images: a 7x7 stem with max pooling, basic or bottleneck blocks.

He et al. 2016 (arXiv 1512.03385), table 1. As in torchvision, the stride of a bottleneck is that of
its 3x3 convolution. Modules have torchvision's names, see `resnet`.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cifar_jax.core.model import torch_init
from cifar_jax.core.norms import wide
from cifar_jax.core.resnet import Block, Downsample, Layers, Stage


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 with their norms, and the shortcut around them.

    Attributes:
        features: output channels.
        stride: of the 3x3 convolution.
        inner: channels of the first two convolutions.
    """

    layers: Layers
    features: int
    stride: int
    inner: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Apply the block: (N, H, W, C) -> (N, H / stride, W / stride, features)."""
        layers = self.layers
        y = layers.conv(x, self.inner, 1, 1, "conv1")
        y = nn.relu(layers.normalise(self, "norm1", y, train))
        y = layers.conv(y, self.inner, 3, self.stride, "conv2")
        y = nn.relu(layers.normalise(self, "norm2", y, train))
        y = layers.conv(y, self.features, 1, 1, "conv3")
        y = layers.normalise(self, "norm3", y, train)
        if x.shape != y.shape:
            project = Downsample(layers, self.features, self.stride, name="downsample")
            x = project(x, train=train)
        return nn.relu(y + x)


class ImageNetResNet(nn.Module):
    """A ResNet for images of about 224x224 pixels, with BatchNorm.

    Attributes:
        num_classes: width of the last layer.
        blocks: of each stage.
        widths: output channels of each stage.
        inner: inner channels of each stage's bottlenecks; empty for basic blocks.
        stem: channels of the 7x7 convolution.
    """

    num_classes: int = 1000
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    inner: tuple[int, ...] = ()
    stem: int = 64

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute the logits of normalised images, float (N, H, W, C): (N, num_classes)."""
        layers = Layers("batch", "project", False, 1, 0.9, ())
        x = layers.conv(x, self.stem, 7, 2, "conv1")
        x = nn.relu(layers.normalise(self, "norm1", x, train))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i, (blocks, features) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
            block = partial(Bottleneck, inner=self.inner[i - 1]) if self.inner else Block
            stage = Stage(layers, blocks, features, min(i, 2), block, name=f"layer{i}")
            x = stage(x, train=train)
        x = jnp.mean(wide(x), axis=(1, 2))
        return nn.Dense(self.num_classes, name="fc", **torch_init(x.shape[-1]))(x)
