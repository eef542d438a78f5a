"""Images whose pixels are equal: counted, named, and dropped from training."""

import time
from pathlib import Path

import numpy as np
import pytest

from cifar_jax.data.repeats import drop_repeats, find_repeats, notes
from cifar_jax.data.sources import cache
from cifar_jax.data.sources.contents import Contents, Dataset, as_dataset
from cifar_jax.errors import UserError

CLASSES = ("cat", "dog")


def toy(train: str, test: str) -> Contents:
    """An image for each pair of a letter, its pixels, and a digit, its label."""

    def split(text: str) -> tuple[np.ndarray, np.ndarray]:
        pixels = [np.full((32, 32, 3), ord(pair[0]), np.uint8) for pair in text.split()]
        return np.array(pixels), np.array([int(pair[1]) for pair in text.split()], np.int32)

    return Contents(*split(train), *split(test), CLASSES)


@pytest.fixture
def dataset(tmp_path: Path):
    def dataset(train: str, test: str) -> Dataset:
        return cache.open_or_build(tmp_path, f"{train}{test}", "toy", lambda: toy(train, test))

    return dataset


#        0  1  2  3  4  5  6  7  8  9
TRAIN = "a0 b0 c1 c0 d1 d1 d1 e0 f1 c1"
TEST = "a0 b1 b1 g0 h0 h1 i1"


def test_each_kind_is_counted_with_its_first_pair() -> None:
    found = {r.kind: (r.count, *r.first) for r in find_repeats(toy(TRAIN, TEST))}
    assert found == {
        "test": (3, "test image 0 (cat)", "train image 0 (cat)"),
        "labels": (3, "train image 2 (dog)", "train image 3 (cat)"),
        "test labels": (2, "test image 4 (cat)", "test image 5 (dog)"),
        "copies": (2, "train image 5 (dog)", "train image 4 (dog)"),
    }
    assert find_repeats(toy("a0 b1", "c0 d1")) == ()


def test_notes_say_them(dataset) -> None:
    said = notes(dataset(TRAIN, TEST))
    assert said[0] == (
        "3 images of the test set also in the training set; the first: test image 0 (cat), "
        "equal to train image 0 (cat)"
    )
    assert len(said) == 5
    assert "--drop-duplicates" in said[-1]
    assert len(notes(dataset("a0 b1", "c0 c1"))) == 1  # nothing to drop
    assert notes(dataset("a0 b1", "c0 d1")) == []


def test_after_dropping_training_images_are_unique(dataset) -> None:
    whole = dataset(TRAIN, TEST)
    found = drop_repeats(whole)
    assert [chr(image[0, 0, 0]) for image in found.train_images] == list("def")
    assert found.train_labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(found.test_images, whole.test_images)
    assert found.name == "toy-unique"
    assert found.fingerprint != whole.fingerprint
    assert found.notes[-1] == "--drop-duplicates: 7 of 10 training images dropped"
    assert find_repeats(found)[0].kind == "test labels"


def test_dropping_nothing_changes_nothing(dataset) -> None:
    whole = dataset("a0 b1 e0", "c0 d1")
    found = drop_repeats(whole)
    assert (found.name, found.fingerprint) == (whole.name, whole.fingerprint)
    assert found.notes == ("--drop-duplicates: 0 of 3 training images dropped",)


def test_dropping_everything_is_refused(dataset) -> None:
    with pytest.raises(UserError, match="--drop-duplicates: 1 of 3 training images remain"):
        drop_repeats(dataset("a0 b1 e0", "a0 b1"))


def test_they_are_kept_in_the_cache(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset(TRAIN, TEST)
    assert len(first.repeats) == 4
    monkeypatch.setattr(cache, "find_repeats", None)
    assert dataset(TRAIN, TEST).repeats == first.repeats


def test_cifar10_takes_a_moment() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60_000, 32, 32, 3), np.uint8)
    images[50_007], images[9] = images[40_000], images[3]
    labels = np.zeros(60_000, np.int32)
    contents = Contents(images[:50_000], labels[:50_000], images[50_000:], labels[50_000:], CLASSES)
    start = time.process_time()
    found = find_repeats(contents)
    assert time.process_time() - start < 1  # about 0.2 s where nothing else runs
    assert {r.kind: r.first for r in found} == {
        "test": ("test image 7 (cat)", "train image 40000 (cat)"),
        "copies": ("train image 9 (cat)", "train image 3 (cat)"),
    }


def test_a_dataset_without_a_cache_can_be_searched() -> None:
    data = as_dataset("toy", toy(TRAIN, TEST))
    assert len(find_repeats(data)) == 4
