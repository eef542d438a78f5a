"""The built-in images: deterministic, balanced, with distinct figures."""

import numpy as np
import pytest

from cifar_jax.data.sources import synthetic
from cifar_jax.data.sources.published import CIFAR10


@pytest.fixture(scope="module")
def draw() -> synthetic.Dataset:
    return synthetic.generate(1100, 50)


def test_shapes_and_types(draw: synthetic.Dataset) -> None:
    assert draw.name == "synthetic"
    assert draw.notice is None
    assert draw.train_images.shape == (1100, 32, 32, 3)
    assert draw.test_images.shape == (50, 32, 32, 3)
    assert draw.train_images.dtype == draw.test_images.dtype == np.uint8
    assert draw.train_labels.dtype == draw.test_labels.dtype == np.int32


def test_classes_are_balanced_and_not_cifar10s(draw: synthetic.Dataset) -> None:
    assert np.bincount(draw.train_labels).tolist() == [110] * 10
    assert np.bincount(draw.test_labels).tolist() == [5] * 10
    assert len(set(draw.classes)) == 10
    assert not set(draw.classes) & set(CIFAR10.classes)


def test_threads_do_not_change_a_pixel(draw: synthetic.Dataset) -> None:
    assert synthetic.generate(1100, 50, workers=1).fingerprint == draw.fingerprint
    assert synthetic.generate(1100, 50, workers=3).fingerprint == draw.fingerprint


def test_seeds_and_splits_differ(draw: synthetic.Dataset) -> None:
    other = synthetic.generate(1100, 50, seed=1)
    assert (other.train_images != draw.train_images).any(axis=(1, 2, 3)).all()
    everything = np.concatenate([draw.train_images, draw.test_images]).reshape(1150, -1)
    assert len(np.unique(everything, axis=0)) == 1150


def test_no_image_is_flat_and_the_range_is_used(draw: synthetic.Dataset) -> None:
    assert draw.train_images.std(axis=(1, 2, 3)).min() > 1
    assert draw.train_images.min() < 10
    assert draw.train_images.max() > 245


@pytest.mark.parametrize("kind", synthetic.CLASSES)
def test_every_kind_is_drawn_around_the_origin(kind: str) -> None:
    """Each figure covers part of the square of side 2.4, but not its border."""
    axis = np.linspace(-1.2, 1.2, 97, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    parameter = np.array([0.0, 0.5, 0.999], np.float32)[:, None, None]
    distance, share = synthetic._figure(kind, np.stack([u] * 3), np.stack([v] * 3), parameter)
    covered = (distance < 0).mean(axis=(1, 2))
    assert (covered > 0.1).all()
    assert (covered < 0.8).all()
    border = np.ones((97, 97), bool)
    border[1:-1, 1:-1] = False
    assert (distance[:, border] > 0).all()
    if share is not None:
        inside = share[distance < 0]
        assert inside.min() == 0
        assert inside.max() == 1


def test_figures_have_the_shapes_of_their_names() -> None:
    axis = np.linspace(-1.2, 1.2, 241, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    half = np.full((1, 1, 1), 0.5, np.float32)

    def inside(kind: str) -> np.ndarray:
        return synthetic._figure(kind, u[None], v[None], half)[0][0] < 0

    radius = np.hypot(u, v)
    clear = (np.abs(radius - 0.95) > 0.01) & (np.abs(radius - 1) > 0.01)
    np.testing.assert_array_equal(inside("disk")[clear], radius[clear] < 0.95)
    ring = inside("ring")
    assert not ring[120, 120]
    np.testing.assert_array_equal(ring[clear], ((radius > 0.42) & (radius < 1))[clear])
    square = inside("square")
    for turned in (square[::-1], square[:, ::-1], square.T):
        np.testing.assert_array_equal(square, turned)
    # A star of five and a triangle have as many tips far from the middle as they have corners.
    for kind, tips, far in (("star", 5, 0.9), ("triangle", 3, 0.9), ("cross", 4, 0.9)):
        angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        columns = np.rint((far * np.cos(angles) + 1.2) / 0.01).astype(int)
        rows = np.rint((far * np.sin(angles) + 1.2) / 0.01).astype(int)
        on = inside(kind)[rows, columns]
        assert (on & ~np.roll(on, 1)).sum() == tips


def test_progress_ends_complete() -> None:
    calls: list[tuple[str, int, int]] = []
    synthetic.generate(600, 10, progress=lambda *call: calls.append(call))
    assert calls == [
        ("drawing synthetic train images", 500, 600),
        ("drawing synthetic train images", 600, 600),
        ("drawing synthetic test images", 10, 10),
    ]
