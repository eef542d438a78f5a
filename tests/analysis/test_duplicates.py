"""Near duplicates: the correlation by NumPy, and what counts as one."""

import json

import numpy as np
import pytest

from cifar_jax.analysis import near


@pytest.fixture(scope="module")
def images():
    """Smooth random images, uint8 (30, 32, 32, 3)."""
    blocks = np.random.default_rng(0).integers(0, 200, (30, 8, 8, 3), np.uint8)
    return blocks.repeat(4, axis=1).repeat(4, axis=2)


def ignore(fraction):
    pass


def test_similarity_is_pearsons_correlation(images):
    test, train = images[:10], images[10:]
    found = near.find_nearest(test, train, ignore)
    for number, image in enumerate(test):
        of_each = []
        for other in train:
            pair = [x.reshape(8, 4, 8, 4, 3).mean((1, 3)).ravel() for x in (image, other)]
            mirrored = image[:, ::-1].reshape(8, 4, 8, 4, 3).mean((1, 3)).ravel()
            of_each.append(max(np.corrcoef(x, pair[1])[0, 1] for x in (pair[0], mirrored)))
        assert found.similarity[number] == pytest.approx(max(of_each), abs=1e-5)
        assert found.row[number] == np.argmax(of_each)


def test_changes_that_a_viewer_ignores_are_near(images):
    rng = np.random.default_rng(1)
    noisy = np.clip(images[0] + rng.normal(0, 8, images[0].shape), 0, 255).astype(np.uint8)
    changed = np.stack(
        [images[0], images[0][:, ::-1], (0.8 * images[0] + 30).astype(np.uint8), noisy, images[1]]
    )
    found = near.find_nearest(changed, images[:1], ignore)
    assert found.near.tolist() == [True, True, True, True, False]


def test_images_of_one_colour_are_like_no_image(images):
    flat = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in (0, 130)])
    assert not near.find_nearest(flat, np.concatenate([flat, images]), ignore).near.any()


def test_sizes_that_eight_does_not_divide(images):
    small = images[:3, :6, :13]
    assert near.find_nearest(small, small, ignore).row.tolist() == [0, 1, 2]


def test_counts_and_accuracies_agree_with_the_predictions(analysed):
    part = json.loads((analysed.directory / "analysis.json").read_text())["parts"]["duplicates"]
    assert part["together"]["record"]["test"]["images"] == 15
    for run in part["runs"]:
        path = analysed.directory / run["arm"] / f"seed{run['seed']}" / "predictions.npz"
        with np.load(path) as arrays:
            accuracy = np.mean(arrays["predicted"] == arrays["label"])
        assert run["record"]["all"] == pytest.approx(accuracy)
