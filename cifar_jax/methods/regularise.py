"""Regularisers of images and labels."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cifar_jax.core.inputs import PADDING, crop_and_flip
from cifar_jax.core.train import cross_entropy

ATTEMPTS = 10  # boxes drawn for an image; if none fits, the image stays whole


def random_crop(key: Array, images: Array) -> Array:
    """Pad by 4 black pixels and cut a random window out, uint8 (B, H, W, C). Never flip."""
    top, left = jax.random.randint(key, (2, len(images)), 0, 2 * PADDING + 1)
    return crop_and_flip(images, jnp.zeros(len(images), bool), top, left)


def box_mask(
    shape: tuple[int, ...], top: Array, left: Array, height: Array | int, width: Array | int
) -> Array:
    """Mark the pixels in each image's box, clipped at the edges: bool (B, H, W, 1).

    `shape` is (H, W). The others are int32 (B,), or () of all boxes; a corner may be negative.
    """
    rows, columns = jnp.arange(shape[0]), jnp.arange(shape[1])
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


@dataclass(frozen=True)
class Cutout:
    """Replace a square of every image by the mean colour, in `Inputs.mix`.

    DeVries & Taylor 2017 (arXiv 1708.04552). The centre is uniform over all pixels, so the square
    may cross the edge.

    Attributes:
        size: side of the square in pixels; the paper's is 16 for CIFAR-10.
    """

    size: int = 16

    def __call__(self, key: Array, x: Array, targets: Array) -> tuple[Array, Array]:
        n, height, width, _ = x.shape
        row_key, column_key = jax.random.split(key)
        row = jax.random.randint(row_key, (n,), 0, height)
        column = jax.random.randint(column_key, (n,), 0, width)
        return self.cut_out(x, row, column), targets

    def cut_out(self, x: Array, row: Array, column: Array) -> Array:
        """Set the square around each centre, int32 (B,), to zero, the mean: float (B, H, W, C)."""
        top, left = row - self.size // 2, column - self.size // 2
        mask = box_mask(x.shape[1:3], top, left, self.size, self.size)
        return jnp.where(mask, jnp.zeros((), x.dtype), x)


@dataclass(frozen=True)
class RandomErasing:
    """Replace a box of some images by noise, in `Inputs.augment`.

    Zhong et al. 2020 (arXiv 1708.04896, algorithm 1), with the paper's best filling (RE-R): every
    pixel and channel of the box is uniform in 0 ... 255.

    Attributes:
        probability: of a box in an image.
        area: smallest and largest area of the box, as shares of the image.
        ratio: smallest height over width; the largest is its inverse.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    ratio: float = 0.3

    def boxes(self, key: Array, n: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Draw top, left, height and width of each image's box, int32 (n,); 0 x 0 for no box.

        The first of `ATTEMPTS` draws that fits into the image, `shape` (H, W), is taken.
        """
        key_area, key_ratio, key_top, key_left, key_whether = jax.random.split(key, 5)
        draws = (ATTEMPTS, n)
        low, high = (share * shape[0] * shape[1] for share in self.area)
        areas = jax.random.uniform(key_area, draws, minval=low, maxval=high)
        ratios = jax.random.uniform(key_ratio, draws, minval=self.ratio, maxval=1 / self.ratio)
        heights = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
        widths = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
        fits = (heights < shape[0]) & (widths < shape[1])
        first, images = jnp.argmax(fits, axis=0), jnp.arange(n)
        erased = jax.random.bernoulli(key_whether, self.probability, (n,)) & fits.any(axis=0)
        height = jnp.where(erased, heights[first, images], 0)
        width = jnp.where(erased, widths[first, images], 0)
        top = jax.random.randint(key_top, (n,), 0, shape[0] - height + 1)
        left = jax.random.randint(key_left, (n,), 0, shape[1] - width + 1)
        return top, left, height, width

    def __call__(self, key: Array, images: Array) -> Array:
        """Erase boxes of a batch: uint8 (B, H, W, C)."""
        box_key, noise_key = jax.random.split(key)
        boxes = self.boxes(box_key, len(images), images.shape[1:3])
        noise = jax.random.bits(noise_key, images.shape, images.dtype)
        return jnp.where(box_mask(images.shape[1:3], *boxes), noise, images)


@dataclass(frozen=True)
class Mixup:
    """Blend every image and its label with another of the batch, in `Inputs.mix`.

    Zhang et al. 2018 (arXiv 1710.09412). As in the paper's code, a batch has one weight from
    Beta(alpha, alpha) and one random permutation. It may pair an image with itself.

    Attributes:
        num_classes: of the labels.
        alpha: the paper's is 1 for CIFAR-10.
    """

    num_classes: int
    alpha: float = 1.0

    def __call__(self, key: Array, x: Array, targets: Array) -> tuple[Array, Array]:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        weight_key, order_key = jax.random.split(key)
        weight = jax.random.beta(weight_key, self.alpha, self.alpha, dtype=wide)
        partner = jax.random.permutation(order_key, x.shape[0])
        shares = jax.nn.one_hot(targets, self.num_classes, dtype=wide)
        return (
            (weight * x + (1 - weight) * x[partner]).astype(x.dtype),
            weight * shares + (1 - weight) * shares[partner],
        )


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy of smoothed targets, for `Experiment.loss`.

    Szegedy et al. 2016 (arXiv 1512.00567, section 7); PyTorch's `CrossEntropyLoss`.

    Attributes:
        share: of each target, spread evenly over all classes.
    """

    share: float

    def __call__(self, logits: Array, targets: Array) -> Array:
        if targets.ndim == 1:
            targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
        return cross_entropy(logits, optax.smooth_labels(targets, self.share))
