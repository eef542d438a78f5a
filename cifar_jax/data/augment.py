"""From stored uint8 pixels to what the network sees, inside the compiled program."""

import jax
import jax.numpy as jnp
from jax import lax

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
PADDING = 4


def normalise(images: jax.Array, dtype: str = "float32") -> jax.Array:
    """Scale uint8 pixels (..., 3) to [0, 1] and standardise each channel with CIFAR-10's moments.

    The division by 255 and by the standard deviation is one multiplication, in `dtype` or, where
    that is shorter, in float32.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    mean = jnp.asarray(MEAN, wide)
    scale = jnp.asarray([1.0 / (255.0 * s) for s in STD], wide)
    return ((images.astype(wide) - 255 * mean) * scale).astype(dtype)


def crop_and_flip(images: jax.Array, flip: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
    """Mirror some images, then cut a window out of each zero-padded image.

    Args:
        images: uint8 (N, H, W, C), raw pixels: the padding is black, not the mean colour.
        flip: bool (N,), mirror left to right.
        top: int32 (N,), first row of the window in the padded image, 0 ... 2 * PADDING.
        left: int32 (N,), its first column.

    Returns:
        uint8 (N, H, W, C).
    """
    images = jnp.where(flip[:, None, None, None], images[:, :, ::-1, :], images)
    border = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
    padded = jnp.pad(images, border)
    shape = images.shape[1:]
    window = jax.vmap(lambda image, y, x: lax.dynamic_slice(image, (y, x, 0), shape))
    return window(padded, top, left)


def random_crop_and_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """The report's augmentation: flip with p = 0.5 and a random window after padding by 4.

    Args:
        key: of this batch.
        images: uint8 (N, H, W, C).
    """
    n = images.shape[0]
    flip_key, offset_key = jax.random.split(key)
    flip = jax.random.bernoulli(flip_key, 0.5, (n,))
    offsets = jax.random.randint(offset_key, (2, n), 0, 2 * PADDING + 1)
    return crop_and_flip(images, flip, offsets[0], offsets[1])
