"""Ordinary Flax models, as a user would write them, for benchmarks.throughput --model.

benchmarks/torch_models.py has the same models in PyTorch, with the same names.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

CLASSES = 10


class SiluCNN(nn.Module):
    """The report's CNN with SiLU instead of ReLU."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, 32, 32, 3) -> (N, 10)."""
        for width in (32, 64, 128):
            x = nn.silu(nn.Conv(width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.silu(nn.Dense(256)(x.reshape(len(x), -1)))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


class ConvMixer(nn.Module):
    """Trockman & Kolter 2022 (arXiv 2201.09792): 2x2 patches, 5x5 depthwise, 1x1 convolutions."""

    width: int = 64
    depth: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, 32, 32, 3) -> (N, 10)."""

        def norm(x: jax.Array) -> Any:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.gelu(x))

        x = norm(nn.Conv(self.width, (2, 2), (2, 2))(x))
        for _ in range(self.depth):
            x = x + norm(nn.Conv(self.width, (5, 5), feature_group_count=self.width)(x))
            x = norm(nn.Conv(self.width, (1, 1))(x))
        return nn.Dense(CLASSES)(jnp.mean(x, (1, 2)))


class ResNet(nn.Module):
    """He et al. 2016 (arXiv 1512.03385), with 1x1 convolutions as shortcuts."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(N, 32, 32, 3) -> (N, 10)."""

        def conv(x: jax.Array, width: int, size: int = 3, stride: int = 1) -> Any:
            padding = [(size // 2, size // 2)] * 2
            x = nn.Conv(width, (size, size), stride, padding=padding, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(conv(x, self.widths[0]))
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                y = conv(nn.relu(conv(x, width, stride=stride)), width)
                x = nn.relu(y + (x if x.shape == y.shape else conv(x, width, 1, stride)))
        return nn.Dense(CLASSES)(jnp.mean(x, (1, 2)))


def resnet20() -> ResNet:
    """He et al., section 4.2."""
    return ResNet((3, 3, 3), (16, 32, 64))


def resnet18() -> ResNet:
    """He et al., table 1, with a 3x3 stem and no pooling for small images."""
    return ResNet((2, 2, 2, 2), (64, 128, 256, 512))
