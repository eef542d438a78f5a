"""Convert uint8 images to the network's input, inside the compiled program."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

PADDING = 4


def call(function: Callable[..., Any], *args: Any, **offered: Any) -> Any:
    """Call a function with those of the `offered` values that it has parameters for."""
    known = inspect.signature(function).parameters
    return function(*args, **{name: offered[name] for name in offered if name in known})


def random_crop_and_flip(key: Array, images: Array) -> Array:
    """Flip with probability 0.5, pad by 4 black pixels, cut a random window: uint8 (B, H, W, C)."""
    flip_key, offset_key = jax.random.split(key)
    flip = jax.random.bernoulli(flip_key, 0.5, (len(images),))
    top, left = jax.random.randint(offset_key, (2, len(images)), 0, 2 * PADDING + 1)
    return crop_and_flip(images, flip, top, left)


def crop_and_flip(images: Array, flip: Array, top: Array, left: Array) -> Array:
    """Flip some images, uint8 (B, H, W, C), and cut a window out of each padded image.

    `flip` is bool (B,). `top` and `left`, int32 (B,) in 0 ... 2 * PADDING, are its corner.
    """
    images = jnp.where(flip[:, None, None, None], images[:, :, ::-1, :], images)
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    window = jax.vmap(lambda image, y, x: lax.dynamic_slice(image, (y, x, 0), images.shape[1:]))
    return window(padded, top, left)


@dataclass(frozen=True)
class Inputs:
    """How images become inputs of the network.

    Attributes:
        augment: applied in this order in training: (key, uint8 images) -> uint8 images. A function
            with a parameter `epoch` gets the epoch, int32 () from 0, too.
        mix: applied after them: (key, normalised images, targets) -> (images, targets). For
            targets see `train`.
        mean, std: of each channel, of pixels in [0, 1]. The defaults are CIFAR-10's.
        dtype: of the result; the layers compute in it.
        function: replaces all of these: (key, uint8 images) -> x. In evaluation `key` is None.
    """

    augment: tuple[Callable[..., Array], ...] = (random_crop_and_flip,)
    mix: tuple[Callable[[Array, Array, Array], tuple[Array, Array]], ...] = ()
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)
    dtype: str = "float32"
    function: Callable[[Array | None, Array], Array] | None = None

    def evaluate(self, images: Array) -> Array:
        """Normalise: uint8 (B, H, W, C) -> (B, H, W, C) of `dtype`."""
        if self.function is not None:
            return self.function(None, images)
        if {len(self.mean), len(self.std)} - {1, images.shape[-1]}:
            raise ValueError(f"Inputs: mean and std must have 1 or {images.shape[-1]} values")
        wide = jnp.promote_types(self.dtype, jnp.float32)
        mean, std = jnp.asarray(self.mean, wide), jnp.asarray(self.std, wide)
        return ((images.astype(wide) / 255 - mean) / std).astype(self.dtype)

    def train(
        self, key: Array, images: Array, labels: Array, epoch: Array | int = 0
    ) -> tuple[Array, Array]:
        """Augment, normalise and mix a batch. Return x, (B, H, W, C) of `dtype`, and targets.

        These are labels, int32 (B,), or soft labels, float (B, classes), of a `mix` function.
        """
        if self.function is not None:
            return self.function(key, images), labels
        for i, augment in enumerate(self.augment):
            images = call(augment, jax.random.fold_in(key, i), images, epoch=epoch)
        x, targets = self.evaluate(images), labels
        for i, mix in enumerate(self.mix, start=len(self.augment)):
            x, targets = mix(jax.random.fold_in(key, i), x, targets)
        return x, targets
