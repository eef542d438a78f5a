"""Regularisers of the training images, inside the compiled program; all are off by default."""

import jax
import jax.numpy as jnp

# Boxes that are drawn for an image before it is left alone because none fits.
ATTEMPTS = 10


def box_mask(
    shape: tuple[int, ...], top: jax.Array, left: jax.Array, height: jax.Array, width: jax.Array
) -> jax.Array:
    """Which pixels lie in each image's box, clipped at the edges: bool (N, H, W, 1).

    Args:
        shape: (H, W).
        top, left: int32 (N,), may be negative.
        height, width: int32 (N,) or ().
    """
    rows, columns = jnp.arange(shape[0]), jnp.arange(shape[1])
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


def cut_out(x: jax.Array, row: jax.Array, column: jax.Array, size: int) -> jax.Array:
    """Zero a square of side `size` whose centre is (row, column), clipped at the edges.

    Args:
        x: float (N, H, W, C), normalised: zero is the mean colour.
        row, column: int32 (N,). The square begins `size // 2` before them.
    """
    side = jnp.asarray(size, jnp.int32)
    mask = box_mask(x.shape[1:3], row - size // 2, column - size // 2, side, side)
    return jnp.where(mask, jnp.zeros((), x.dtype), x)


def random_cutout(key: jax.Array, x: jax.Array, size: int) -> jax.Array:
    """Cutout (DeVries & Taylor 2017, arXiv 1708.04552): a square of every image is the mean colour.

    The centre is uniform over all pixels, so that part of the square may lie outside. As in the
    paper it follows the normalisation, where zero is the mean.

    Args:
        key: of this batch.
        x: float (N, H, W, C), normalised.
        size: side of the square in pixels; the paper's is 16 for CIFAR-10.
    """
    n, height, width, _ = x.shape
    row_key, column_key = jax.random.split(key)
    row = jax.random.randint(row_key, (n,), 0, height)
    column = jax.random.randint(column_key, (n,), 0, width)
    return cut_out(x, row, column, size)


def erasing_boxes(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    probability: float,
    area: tuple[float, float],
    ratio: float,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Top, left, height and width, int32 (n,) each, of what is erased; 0 x 0 where nothing is.

    See `random_erasing`.
    """
    key_area, key_ratio, key_top, key_left, key_whether = jax.random.split(key, 5)
    pixels = shape[0] * shape[1]
    draws = (ATTEMPTS, n)
    areas = pixels * jax.random.uniform(key_area, draws, minval=area[0], maxval=area[1])
    ratios = jax.random.uniform(key_ratio, draws, minval=ratio, maxval=1 / ratio)
    heights = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    fits = (heights < shape[0]) & (widths < shape[1])
    first, images = jnp.argmax(fits, axis=0), jnp.arange(n)
    erased = jax.random.bernoulli(key_whether, probability, (n,)) & fits.any(axis=0)
    height = jnp.where(erased, heights[first, images], 0)
    width = jnp.where(erased, widths[first, images], 0)
    top = jax.random.randint(key_top, (n,), 0, shape[0] - height + 1)
    left = jax.random.randint(key_left, (n,), 0, shape[1] - width + 1)
    return top, left, height, width


def random_erasing(
    key: jax.Array,
    images: jax.Array,
    probability: float,
    area: tuple[float, float] = (0.02, 0.4),
    ratio: float = 0.3,
) -> jax.Array:
    """Random erasing (Zhong et al. 2020, arXiv 1708.04896, algorithm 1): a box becomes noise.

    A box has a uniform share of the image's area and a uniform height over width; of `ATTEMPTS`
    boxes the first that is smaller than the image is taken, at a uniform place. The paper's best
    filling (RE-R): every pixel and channel of the box is uniform in 0 ... 255, before
    normalisation.

    Args:
        key: of this batch.
        images: uint8 (N, H, W, C).
        probability: that an image has a box.
        area: smallest and largest share of the image.
        ratio: smallest height over width; the largest is its inverse.
    """
    box_key, noise_key = jax.random.split(key)
    boxes = erasing_boxes(box_key, len(images), images.shape[1:3], probability, area, ratio)
    noise = jax.random.bits(noise_key, images.shape, images.dtype)
    return jnp.where(box_mask(images.shape[1:3], *boxes), noise, images)


def mixup(key: jax.Array, x: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412): blend every image with another of its batch.

    As in the paper's code, one weight ~ Beta(alpha, alpha) for the batch, and a random permutation
    of it (an image may meet itself).

    Args:
        key: of this batch.
        x: float (N, H, W, C), normalised.
        alpha: the paper's is 1 for CIFAR-10.

    Returns:
        weight * x + (1 - weight) * x[partner], the dtype of x; the weight, float (), float32 or
        wider; the partners, int32 (N,).
    """
    weight_key, order_key = jax.random.split(key)
    weight = jax.random.beta(
        weight_key, alpha, alpha, dtype=jnp.promote_types(x.dtype, jnp.float32)
    )
    partner = jax.random.permutation(order_key, x.shape[0])
    blend = weight * x + (1 - weight) * x[partner]
    return blend.astype(x.dtype), weight, partner
