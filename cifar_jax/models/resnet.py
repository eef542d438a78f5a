"""Residual networks for 32x32 images, and the same without their shortcuts.

He et al. 2016 (arXiv 1512.03385): ResNet-20, 32 and 56 and the plain nets beside them are those of
section 4.2, ResNet-18 is that of table 1 with a stem for small images (3x3, stride 1, no max pool).

Modules are named as torchvision's, with `norm` for `bn`: its `layer2.0.downsample.0.weight` is
`params["layer2"]["0"]["downsample"]["0"]["kernel"]` here. Initial values are torchvision's too:
kernels from N(0, 2 / fan_out) (He et al. 2015, arXiv 1502.01852, equation 14), the last layer as
PyTorch's `Linear`; biases of convolutions, where there are any, start at zero. Sub-modules have
explicit names, so that the layers shared by two arms get the same initial values from the same key.
"""

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from cifar_jax.models import layers, strided
from cifar_jax.models.dtypes import wide_dtype
from cifar_jax.models.initializers import bias_init, kernel_init
from cifar_jax.models.norms import norm_layer
from cifar_jax.models.paths import is_frozen

he_normal: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution of 3x3 (one zero around) or 1x1, NHWC.

    Attributes:
        features: output channels.
        size: 3 or 1, of the kernel.
        stride: 1 or 2.
        use_bias: whether there is a bias.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, ceil(H/stride), ceil(W/stride), features)."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape).astype(x.dtype)
        if self.size == 1:
            y = strided.conv1x1(x, kernel, self.stride)
        elif self.stride == 2:
            y = strided.conv3x3_stride2(x, kernel)
        else:
            y = layers.conv3x3(x, kernel)
        if not self.use_bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)


@dataclass(frozen=True)
class Norms:
    """Which norm stands behind every convolution of a network; fields as in `ResNet`."""

    norm: str
    groups: int
    momentum: float
    frozen: tuple[str, ...]

    def apply(
        self, parent: nn.Module, name: str, x: jax.Array, train: bool, zero_scale: bool = False
    ) -> jax.Array:
        """Normalise x by a layer `name` of `parent`, inside the parent's `__call__`."""
        if self.norm == "none":
            return x
        layer = norm_layer(
            self.norm,
            groups=self.groups,
            momentum=self.momentum,
            name=name,
            zero_scale=zero_scale,
        )
        frozen = is_frozen(".".join((*parent.path, name)), self.frozen)
        y: jax.Array = layer(x, train=train and not frozen)
        return y


def pad_channels(x: jax.Array, features: int, stride: int) -> jax.Array:
    """The shortcut without parameters, He et al.'s option A: skip positions, add zero channels.

    (N, H, W, C) -> (N, ceil(H/stride), ceil(W/stride), features), the zeros behind x's channels.
    """
    x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


class Downsample(nn.Module):
    """The projection shortcut, He et al.'s option B: 1x1 convolution and norm."""

    norms: Norms
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, H, W, C) -> (N, ceil(H/stride), ceil(W/stride), features)."""
        bias = self.norms.norm == "none"
        x = Conv(self.features, 1, self.stride, use_bias=bias, name="0")(x)
        return self.norms.apply(self, "1", x, train)


class Block(nn.Module):
    """Two 3x3 convolutions, each with its norm, and the shortcut around them.

    Attributes:
        norms: behind the convolutions.
        features: output channels.
        stride: of the first convolution.
        shortcut: see `ResNet`.
        zero_init: see `ResNet`.
    """

    norms: Norms
    features: int
    stride: int
    shortcut: str
    zero_init: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, H, W, C) -> (N, ceil(H/stride), ceil(W/stride), features)."""
        bias = self.norms.norm == "none"
        y = Conv(self.features, stride=self.stride, use_bias=bias, name="conv1")(x)
        y = nn.relu(self.norms.apply(self, "norm1", y, train))
        y = Conv(self.features, use_bias=bias, name="conv2")(y)
        y = self.norms.apply(self, "norm2", y, train, zero_scale=self.zero_init)
        if self.shortcut == "none":
            return nn.relu(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            if self.shortcut == "project":
                project = Downsample(self.norms, self.features, self.stride, name="downsample")
                x = project(x, train=train)
            else:
                x = pad_channels(x, self.features, self.stride)
        return nn.relu(y + x)


class Stage(nn.Module):
    """Blocks "0", "1", ... of the same width; the first has the stride."""

    norms: Norms
    blocks: int
    features: int
    stride: int
    shortcut: str
    zero_init: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, H, W, C) -> (N, ceil(H/stride), ceil(W/stride), features)."""
        for index in range(self.blocks):
            block = Block(
                self.norms,
                self.features,
                self.stride if index == 0 else 1,
                self.shortcut,
                self.zero_init,
                name=str(index),
            )
            x = block(x, train=train)
        return x


class ResNet(nn.Module):
    """3x3 stem, stages of blocks, mean over the positions, dense layer.

    Attributes:
        num_classes: width of the last layer.
        norm: behind each convolution: "none" (convolutions then have biases), "batch", "layer",
            "instance" or "group".
        blocks: of each stage.
        widths: channels of each stage, and of the stem those of the first. From the second stage
            on, each halves height and width.
        shortcut: around a block: "pad" (He et al.'s option A), "project" (option B: a 1x1
            convolution where the shape changes) or "none" (a plain net).
        zero_init: the scale of each block's last norm starts at 0, so that the block starts as its
            shortcut (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
        dropout: rate before the last layer.
        norm_groups: of norm "group"; divides all widths.
        norm_momentum: of norm "batch", weight of the old running statistics.
        frozen: patterns of parameters that are not trained; a norm layer whose parameters all
            match keeps its running statistics, and normalises by them in training too.
    """

    num_classes: int = 10
    norm: str = "batch"
    blocks: tuple[int, ...] = (3, 3, 3)
    widths: tuple[int, ...] = (16, 32, 64)
    shortcut: str = "pad"
    zero_init: bool = False
    dropout: float = 0.0
    norm_groups: int = 8
    norm_momentum: float = 0.9
    frozen: tuple[str, ...] = ()

    HEAD: ClassVar[str] = "fc"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits of a batch.

        Args:
            x: float (N, H, W, 3), normalised.
            train: batch statistics used and updated, dropout on (rng collection `dropout`).

        Returns:
            (N, num_classes), float32 or x's wider dtype. Activations have the dtype of x.
        """
        norms = Norms(self.norm, self.norm_groups, self.norm_momentum, self.frozen)
        x = Conv(self.widths[0], use_bias=self.norm == "none", name="conv1")(x)
        x = nn.relu(norms.apply(self, "norm1", x, train))
        for number, (blocks, features) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
            stride = 1 if number == 1 else 2
            name = f"layer{number}"
            stage = Stage(norms, blocks, features, stride, self.shortcut, self.zero_init, name=name)
            x = stage(x, train=train)
        x = jnp.mean(x, axis=(1, 2), dtype=wide_dtype(x))
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(
            self.num_classes,
            kernel_init=kernel_init,
            bias_init=bias_init(self.widths[-1]),
            name="fc",
        )(x)
