"""Crop, flip, normalisation and their order, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.inputs import Inputs, crop_and_flip, random_crop_and_flip
from cifar_jax.methods.regularise import Cutout, Mixup, RandomErasing

OFFSETS = np.array([(y, x, f) for y in range(9) for x in range(9) for f in (0, 1)])
MEAN = np.array([0.4914, 0.4822, 0.4465])
STD = np.array([0.2470, 0.2435, 0.2616])
LABELS = jnp.arange(8, dtype=jnp.int32)


def noise(n: int = 8, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


def test_every_window_and_mirror_image_is_numpys() -> None:
    images = np.random.default_rng(0).integers(1, 256, (len(OFFSETS), 32, 32, 3), np.uint8)
    expected = np.empty_like(images)
    for image, result, (top, left, flip) in zip(images, expected, OFFSETS, strict=True):
        padded = np.pad(np.fliplr(image) if flip else image, ((4, 4), (4, 4), (0, 0)))
        result[:] = padded[top : top + 32, left : left + 32]
    actual = crop_and_flip(images, OFFSETS[:, 2] == 1, OFFSETS[:, 0], OFFSETS[:, 1])
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, expected)


def test_padding_is_black_before_normalisation() -> None:
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    corner = np.zeros(1, np.int32)
    x = np.asarray(Inputs().evaluate(crop_and_flip(white, corner == 1, corner, corner)))[0]
    black = np.broadcast_to(-MEAN / STD, (4, 32, 3))
    np.testing.assert_allclose(x[:4], black, rtol=1e-5)
    np.testing.assert_allclose(x[:, :4], black.transpose(1, 0, 2), rtol=1e-5)
    np.testing.assert_allclose(x[4:, 4:], np.broadcast_to((1 - MEAN) / STD, (28, 28, 3)), rtol=1e-5)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_normalisation_is_the_protocols(value: int) -> None:
    image = np.full((2, 2, 3), value, np.uint8)
    expected = np.broadcast_to((value / 255 - MEAN) / STD, image.shape)
    actual = Inputs().evaluate(image)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_other_moments_and_numbers_of_channels() -> None:
    grey = np.full((2, 4, 4, 1), 51, np.uint8)
    x = Inputs(mean=(0.1,), std=(0.5,)).evaluate(grey)
    np.testing.assert_allclose(x, np.full(grey.shape, 0.2), rtol=1e-6)


def test_bfloat16_is_rounded_once() -> None:
    """From float32, in which the pixels are normalised."""
    x = Inputs(dtype="bfloat16").evaluate(noise())
    assert x.dtype == jnp.bfloat16
    np.testing.assert_array_equal(x, Inputs().evaluate(noise()).astype(jnp.bfloat16))


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (top, left, flip) of 16,200 random draws, read from images of pixel positions."""
    n = 200 * 81
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = np.arange(32)[:, None]
    image[..., 1] = np.arange(32)
    images = np.broadcast_to(image, (n, *image.shape))
    # Rows and columns 15 and 16 of a window are never padding.
    middle = jax.jit(lambda key: random_crop_and_flip(key, images)[:, 15, 15:17])(jax.random.key(0))
    rows, columns = np.asarray(middle, np.int64)[:, 0, 0], np.asarray(middle, np.int64)[:, :, 1]
    flip = columns[:, 1] < columns[:, 0]
    left = np.where(flip, 31 - columns[:, 0], columns[:, 0]) + 4 - 15
    return rows + 4 - 15, left, flip


def test_random_windows_are_uniform_over_all_81(draws) -> None:
    top, left, _ = draws
    counts = np.zeros((9, 9), int)
    np.add.at(counts, (top, left), 1)
    # 200 expected of each; five standard deviations.
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)


def test_random_flips_are_a_fair_coin_for_every_window(draws) -> None:
    top, left, flip = draws
    assert abs(flip.mean() - 0.5) < 5 * 0.5 / np.sqrt(flip.size)
    flipped = np.zeros((9, 9), int)
    np.add.at(flipped, (top[flip], left[flip]), 1)
    assert np.abs(flipped - 100).max() < 5 * np.sqrt(100)


def test_the_key_determines_the_draws() -> None:
    images = noise()
    first, again, other = (random_crop_and_flip(jax.random.key(k), images) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def test_functions_follow_one_another_with_keys_of_their_own() -> None:
    """Crop and flip, erasing, normalisation, cutout, mixup: each has the key of its index."""
    key = jax.random.key(5)
    erase, cutout, mix = RandomErasing(0.5), Cutout(4), Mixup(10)
    inputs = Inputs(augment=(random_crop_and_flip, erase), mix=(cutout, mix))

    @jax.jit
    def by_hand(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = [jax.random.fold_in(key, i) for i in range(4)]
        images = erase(keys[1], random_crop_and_flip(keys[0], images))
        return mix(keys[3], *cutout(keys[2], Inputs().evaluate(images), LABELS))

    found, expected = jax.jit(inputs.train)(key, noise(), LABELS), by_hand(noise())
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_without_mix_the_targets_are_the_labels() -> None:
    key = jax.random.key(5)
    x, targets = Inputs().train(key, noise(), LABELS)
    cropped = random_crop_and_flip(jax.random.fold_in(key, 0), noise())
    np.testing.assert_array_equal(x, Inputs().evaluate(cropped))
    np.testing.assert_array_equal(targets, LABELS)
    x, _ = Inputs(augment=()).train(key, noise(), LABELS)
    np.testing.assert_array_equal(x, Inputs().evaluate(noise()))
