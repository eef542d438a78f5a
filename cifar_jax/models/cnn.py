"""The report's CNN, with or without normalisation: the same module is either arm."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cifar_jax.models import layers
from cifar_jax.models.dtypes import wide
from cifar_jax.models.initializers import bias_init, kernel_init
from cifar_jax.models.norms import BatchNorm, norm_layer
from cifar_jax.models.paths import is_frozen


class Conv3x3(nn.Module):
    """3x3 convolution, stride 1, same padding, with bias and PyTorch's initial values."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[layers.Windows, jax.Array]:
        """(N, H, W, C), H and W even -> the result without its bias, in 2x2 windows; the bias."""
        fan_in = 9 * x.shape[-1]
        kernel = self.param("kernel", kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", bias_init(fan_in), (self.features,))
        return layers.conv3x3_windows(x, kernel.astype(x.dtype)), bias.astype(x.dtype)


class CNN(nn.Module):
    """Three blocks of [convolution, (norm), ReLU, 2x2 max pool], then two dense layers.

    Sub-modules have explicit names, so that the layers shared by two arms get the same initial
    values from the same key: a parameter's key is derived from its path alone.

    Attributes:
        num_classes: width of the last layer.
        norm: "none", "batch", "layer", "instance" or "group". After the first dense layer there is
            no instance norm: it has no positions to take statistics over.
        dropout: rate before the last layer.
        widths: channels of the three convolutions.
        hidden: width of the first dense layer.
        norm_groups: of norm "group"; divides all widths.
        norm_momentum: of norm "batch", weight of the old running statistics.
        frozen: patterns of parameters that are not trained; a norm layer whose parameters all
            match keeps its running statistics, and normalises by them in training too.
    """

    num_classes: int = 10
    norm: str = "none"
    dropout: float = 0.5
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 256
    norm_groups: int = 8
    norm_momentum: float = 0.9
    frozen: tuple[str, ...] = ()

    HEAD: ClassVar[str] = "dense2"

    def _normalise(self, x: jax.Array, index: int, train: bool) -> jax.Array:
        if self.norm == "none" or (self.norm == "instance" and x.ndim == 2):
            return x
        layer = norm_layer(
            self.norm,
            groups=self.norm_groups,
            momentum=self.norm_momentum,
            name=f"norm{index}",
        )
        y: jax.Array = layer(x, train=train and not is_frozen(f"norm{index}", self.frozen))
        return y

    def _normalise_relu_pool(
        self, windows: layers.Windows, bias: jax.Array, index: int, train: bool
    ) -> jax.Array:
        """Bias, norm, ReLU and 2x2 max pooling behind a convolution: (N, H/2, W/2, C)."""
        if self.norm == "none":
            y = layers.bias_relu_max_pool_windows(windows.values, bias, windows.axes)
        elif self.norm == "batch":
            fused = BatchNorm(self.norm_momentum, name=f"norm{index}")
            train = train and not is_frozen(f"norm{index}", self.frozen)
            y = fused(windows.values, train=train, shift=bias, pool_axes=windows.axes)
        else:
            x = windows.whole() + bias
            return layers.relu_max_pool_2x2(self._normalise(x, index, train))
        return windows.image(y)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits of a batch.

        Args:
            x: float (N, H, W, 3), normalised; H and W divisible by 2 ** len(widths).
            train: dropout on (rng collection `dropout`), batch statistics used and updated.

        Returns:
            (N, num_classes), float32 or x's wider dtype. Activations have the dtype of x.
        """
        for index, width in enumerate(self.widths, start=1):
            windows, bias = Conv3x3(width, name=f"conv{index}")(x)
            x = self._normalise_relu_pool(windows, bias, index, train)
        x = x.reshape(x.shape[0], -1)
        fan_in = x.shape[-1]
        x = nn.Dense(
            self.hidden,
            dtype=x.dtype,
            kernel_init=kernel_init,
            bias_init=bias_init(fan_in),
            name="dense1",
        )(x)
        x = self._normalise(x, len(self.widths) + 1, train)
        x = nn.relu(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(
            self.num_classes,
            kernel_init=kernel_init,
            bias_init=bias_init(self.hidden),
            name="dense2",
        )(wide(x))


def count_parameters(params: object) -> int:
    """Number of trainable scalars in a parameter tree."""
    return sum(int(jnp.size(leaf)) for leaf in jax.tree.leaves(params))
