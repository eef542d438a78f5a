"""Cutout, random erasing and mixup against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.data.augment import normalise
from cifar_jax.data.regularise import (
    box_mask,
    cut_out,
    erasing_boxes,
    mixup,
    random_cutout,
    random_erasing,
)

KEY = jax.random.key(0)
SIDE = 8


@pytest.mark.parametrize("size", [1, 4, 5, 16])
def test_cutout_is_numpys_at_every_centre(size: int) -> None:
    """Clipped at the edges, as in the paper's code: from centre - size // 2 on."""
    centres = np.array([(y, x) for y in range(SIDE) for x in range(SIDE)], np.int32)
    images = np.random.default_rng(0).uniform(1, 2, (len(centres), SIDE, SIDE, 3))
    images = images.astype(np.float32)
    expected = images.copy()
    for image, (y, x) in zip(expected, centres, strict=True):
        top, left = y - size // 2, x - size // 2
        image[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    actual = cut_out(jnp.asarray(images), centres[:, 0], centres[:, 1], size)
    np.testing.assert_array_equal(actual, expected)


def test_cutout_fills_with_the_mean_colour_and_visits_every_centre() -> None:
    images = jnp.full((4000, SIDE, SIDE, 3), 255, jnp.uint8)
    x = np.asarray(random_cutout(KEY, normalise(images), 1))
    assert set(np.unique(x[..., 0])) == {np.float32(0), np.unique(x[..., 0]).max()}
    centres = (x == 0).all(-1).sum(0)
    assert (x == 0).all(-1).sum() == 4000
    # 62.5 expected of each; five standard deviations.
    assert np.abs(centres - 4000 / SIDE**2).max() < 5 * np.sqrt(4000 / SIDE**2)


def test_box_mask_is_clipped() -> None:
    boxes = np.array([(-2, 5, 4, 9), (3, 3, 0, 0), (7, 7, 1, 1)], np.int32)
    mask = np.asarray(box_mask((SIDE, SIDE), *map(jnp.asarray, boxes.T)))[..., 0]
    expected = np.zeros_like(mask)
    expected[0, :2, 5:] = True
    expected[2, 7, 7] = True
    np.testing.assert_array_equal(mask, expected)


def numpy_boxes(n: int, area: tuple[float, float], ratio: float) -> np.ndarray:
    """Height and width of `n` boxes by the paper's loop, on 32x32 images."""
    rng, found = np.random.default_rng(0), []
    while len(found) < n:
        size = 1024 * rng.uniform(*area)
        shape = rng.uniform(ratio, 1 / ratio)
        height, width = round(np.sqrt(size * shape)), round(np.sqrt(size / shape))
        if height < 32 and width < 32:
            found.append((height, width))
    return np.array(found)


def test_erased_boxes_have_the_sizes_of_the_papers_loop() -> None:
    n = 20_000
    top, left, height, width = map(
        np.asarray, erasing_boxes(KEY, n, (32, 32), 1.0, (0.02, 0.4), 0.3)
    )
    expected = numpy_boxes(n, (0.02, 0.4), 0.3)
    assert (height > 0).all()
    assert (np.maximum(height, width) < 32).all()
    for found, wanted in (
        (height, expected[:, 0]),
        (width, expected[:, 1]),
        (height * width, expected.prod(1)),
    ):
        # Means of two samples: five standard errors of their difference.
        assert abs(found.mean() - wanted.mean()) < 5 * wanted.std() * np.sqrt(2 / n)
        assert abs(found.std() / wanted.std() - 1) < 0.05
    for start, length in ((top, height), (left, width)):
        assert start.min() == 0
        assert ((start + length) <= 32).all()
        assert (start + length).max() == 32
        # Uniform over all places: half way on average.
        assert np.mean(start / (32 - length)) == pytest.approx(0.5, abs=5 * 0.3 / np.sqrt(n))


def test_erasing_has_its_probability_and_leaves_the_rest_alone() -> None:
    n = 2000
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    erased = np.asarray(random_erasing(KEY, jnp.asarray(images), 0.3))
    assert erased.dtype == np.uint8
    changed = (erased != images).any(-1)
    share = changed.any((1, 2)).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
    for image in changed[changed.any((1, 2))][:50]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # Three noise channels leave a pixel as it was once in 16 million.
        assert box.all()
        assert image.sum() == box.sum()
        assert 0.015 < box.size / 1024 < 0.42


def test_what_is_erased_is_uniform_noise() -> None:
    images = jnp.zeros((500, 32, 32, 3), jnp.uint8)
    boxes = (0.3, 0.31)
    noise = np.asarray(random_erasing(KEY, images, 1.0, boxes, 0.9))
    inside = noise[(noise != 0).any(-1)]
    counts = np.bincount(inside.ravel(), minlength=256)[1:]
    mean = counts.mean()
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)
    assert abs(np.corrcoef(inside.T)[0, 1]) < 5 / np.sqrt(len(inside))


def test_an_image_that_no_box_fits_is_left_alone() -> None:
    _, _, height, width = erasing_boxes(KEY, 50, (32, 32), 1.0, (1.0, 1.0), 0.3)
    assert not np.asarray(height).any()
    assert not np.asarray(width).any()


def test_mixup_is_numpys_blend() -> None:
    x = np.random.default_rng(0).normal(size=(9, 4, 4, 3)).astype(np.float32)
    mixed, weight, partner = map(np.asarray, mixup(KEY, jnp.asarray(x), 0.5))
    np.testing.assert_array_equal(np.sort(partner), np.arange(9))
    assert (partner != np.arange(9)).any()
    assert 0 <= weight <= 1
    np.testing.assert_allclose(mixed, weight * x + (1 - weight) * x[partner], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 1.0, 4.0])
def test_mixups_weights_are_beta(alpha: float) -> None:
    keys = jax.random.split(KEY, 2000)
    weights = np.asarray(jax.vmap(lambda key: mixup(key, jnp.zeros((2, 1)), alpha)[1])(keys))
    assert np.isfinite(weights).all()
    assert weights.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2000))
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
