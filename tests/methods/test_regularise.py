"""Cutout, random erasing, mixup and label smoothing against NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.train import count_correct, cross_entropy
from cifar_jax.methods.regularise import (
    Cutout,
    LabelSmoothing,
    Mixup,
    RandomErasing,
    box_mask,
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
    actual = Cutout(size).cut_out(jnp.asarray(images), centres[:, 0], centres[:, 1])
    np.testing.assert_array_equal(actual, expected)


def test_cutout_fills_with_the_mean_colour_and_visits_every_centre() -> None:
    images = jnp.full((4000, SIDE, SIDE, 3), 255, jnp.uint8)
    labels = jnp.zeros(4000, jnp.int32)
    x, targets = Cutout(1)(KEY, Inputs().evaluate(images), labels)
    x = np.asarray(x)
    assert targets is labels
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
    top, left, height, width = map(np.asarray, RandomErasing(1.0).boxes(KEY, n, (32, 32)))
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
        # Uniform over all positions: half way on average.
        assert np.mean(start / (32 - length)) == pytest.approx(0.5, abs=5 * 0.3 / np.sqrt(n))


def test_erasing_has_its_probability_and_changes_nothing_else() -> None:
    n = 2000
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    erased = np.asarray(RandomErasing(0.3)(KEY, jnp.asarray(images)))
    assert erased.dtype == np.uint8
    changed = (erased != images).any(-1)
    share = changed.any((1, 2)).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
    for image in changed[changed.any((1, 2))][:50]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # Noise in three channels equals a pixel once in 16 million.
        assert box.all()
        assert image.sum() == box.sum()
        assert 0.015 < box.size / 1024 < 0.42


def test_erased_boxes_are_uniform_noise() -> None:
    images = jnp.zeros((500, 32, 32, 3), jnp.uint8)
    noise = np.asarray(RandomErasing(1.0, (0.3, 0.31), 0.9)(KEY, images))
    inside = noise[(noise != 0).any(-1)]
    counts = np.bincount(inside.ravel(), minlength=256)[1:]
    mean = counts.mean()
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)
    assert abs(np.corrcoef(inside.T)[0, 1]) < 5 / np.sqrt(len(inside))


def test_an_image_that_no_box_fits_stays_whole() -> None:
    _, _, height, width = RandomErasing(1.0, (1.0, 1.0)).boxes(KEY, 50, (32, 32))
    assert not np.asarray(height).any()
    assert not np.asarray(width).any()


def test_mixup_is_numpys_blend_of_images_and_labels() -> None:
    x = np.random.default_rng(0).normal(size=(9, 4, 4, 3)).astype(np.float32)
    labels = np.arange(9, dtype=np.int32)
    mixed, shares = map(np.asarray, Mixup(9, 0.5)(KEY, jnp.asarray(x), jnp.asarray(labels)))
    # Every image has a class of its own, so its shares name its partner and the weight.
    np.testing.assert_allclose(shares.sum(1), np.ones(9), rtol=1e-6)
    weight = np.unique(np.diag(shares)[np.diag(shares) < 1])
    assert len(weight) == 1
    assert 0 <= weight <= 1
    partner = (shares - weight * np.eye(9)).argmax(1)
    np.testing.assert_array_equal(np.sort(partner), labels)
    assert (partner != labels).any()
    np.testing.assert_allclose(mixed, weight * x + (1 - weight) * x[partner], rtol=1e-5, atol=1e-6)
    expected = weight * np.eye(9)[labels] + (1 - weight) * np.eye(9)[partner]
    np.testing.assert_allclose(shares, expected, rtol=1e-5, atol=1e-6)


def test_mixups_weights_are_beta() -> None:
    def weight(key: jax.Array, alpha: jax.Array) -> jax.Array:
        """Of 64 images of classes of their own, by one that does not meet itself."""
        x, labels = jnp.zeros((64, 1)), jnp.arange(64)
        shares = Mixup(64, alpha)(key, x, labels)[1]
        own = jnp.diag(shares)
        return own[jnp.argmin(own)]

    draw = jax.jit(jax.vmap(weight, in_axes=(0, None)))
    for alpha in (0.01, 1.0, 4.0):
        weights = np.asarray(draw(jax.random.split(KEY, 2000), alpha))
        assert np.isfinite(weights).all()
        assert weights.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2000))
        assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixed_images_keep_their_dtype_and_shares_are_wide() -> None:
    x, labels = jnp.ones((4, 2, 2, 3), jnp.bfloat16), jnp.arange(4)
    mixed, shares = Mixup(4)(KEY, x, labels)
    assert mixed.dtype == jnp.bfloat16
    assert shares.dtype == jnp.float32


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 5)).astype(np.float32)
FIRST, SECOND = RNG.integers(0, 5, (2, 12)).astype(np.int32)
LOG_P = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum(1, keepdims=True))
WEIGHT = 0.3
SHARES = (WEIGHT * np.eye(5)[FIRST] + (1 - WEIGHT) * np.eye(5)[SECOND]).astype(np.float32)


def smoothed(labels: np.ndarray, smoothing: float) -> np.ndarray:
    return (1 - smoothing) * np.eye(5)[labels] + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_loss_is_that_of_its_targets(smoothing: float) -> None:
    expected = -(smoothed(FIRST, smoothing) * LOG_P).sum(1).mean()
    assert float(LabelSmoothing(smoothing)(LOGITS, FIRST)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_loss_is_pytorchs(smoothing: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(FIRST).long(), label_smoothing=smoothing
    )
    found = LabelSmoothing(smoothing)(LOGITS, FIRST)
    assert float(found) == pytest.approx(float(expected), 1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_mixed_labels_is_that_of_the_mixed_targets(smoothing: float) -> None:
    target = WEIGHT * smoothed(FIRST, smoothing) + (1 - WEIGHT) * smoothed(SECOND, smoothing)
    expected = -(target * LOG_P).sum(1).mean()
    loss = LabelSmoothing(smoothing) if smoothing else cross_entropy
    assert float(loss(LOGITS, jnp.asarray(SHARES))) == pytest.approx(expected, rel=1e-5)


def test_a_hit_of_either_label_counts_by_its_weight() -> None:
    best = LOGITS.argmax(1)
    expected = WEIGHT * (best == FIRST).sum() + (1 - WEIGHT) * (best == SECOND).sum()
    assert (best == FIRST).sum() != (best == SECOND).sum()
    assert float(count_correct(LOGITS, jnp.asarray(SHARES))) == pytest.approx(expected, rel=1e-5)
    alone = count_correct(LOGITS, jnp.asarray(FIRST))
    assert alone.dtype == jnp.float32
    assert int(alone) == (best == FIRST).sum()
