"""Some classes of a dataset."""

import numpy as np
import pytest

from cifar_jax.data.sources.contents import Contents, as_dataset
from cifar_jax.data.subset import is_synthetic, parse_classes, select_classes
from cifar_jax.errors import UserError

CLASSES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 4, 40, np.int32)
    return as_dataset("toy", Contents(images[:30], labels[:30], images[30:], labels[30:], CLASSES))


def test_images_keep_their_order_and_labels_follow_the_names(dataset):
    found = select_classes(dataset, ("dog", "bee"))
    assert (found.name, found.classes) == ("toy-2of4", ("dog", "bee"))
    for split in ("train", "test"):
        labels = getattr(dataset, f"{split}_labels")
        rows = np.flatnonzero((labels == 1) | (labels == 3))
        np.testing.assert_array_equal(
            getattr(found, f"{split}_images"), getattr(dataset, f"{split}_images")[rows]
        )
        np.testing.assert_array_equal(getattr(found, f"{split}_labels"), labels[rows] == 1)
        assert getattr(found, f"{split}_labels").dtype == np.int32


def test_another_selection_is_another_dataset(dataset):
    found = {select_classes(dataset, names).fingerprint for names in (CLASSES, CLASSES[:2])}
    assert len(found) == 2
    assert select_classes(dataset, CLASSES).fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ant,fly", "'fly' is not a class; allowed: ant, bee, cow, dog"),
        ("ant,ant", "named twice"),
        ("ant", "at least two"),
        ("ant,", "'' is not a class"),
    ],
)
def test_classes_that_are_none_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_classes(text, CLASSES)


COMMAS = ("bee", "tench, Tinca tinca", "tench", "a", "b", "a,b", 'say "x", y')


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tench, Tinca tinca,bee", ("tench, Tinca tinca", "bee")),
        ("bee , tench", ("bee", "tench")),
        ('"tench, Tinca tinca", bee', ("tench, Tinca tinca", "bee")),
        ('bee,say "x", y', ("bee", 'say "x", y')),
        ("a,b,bee", ("a,b", "bee")),
        ('"a","b"', ("a", "b")),
        ("b,a", ("b", "a")),
    ],
)
def test_a_name_may_hold_a_comma(text, names):
    assert parse_classes(text, COMMAS) == names


def test_equal_images_of_other_classes_do_not_count():
    images = np.zeros((4, 32, 32, 3), np.uint8)
    images[2:] = 1
    labels = np.arange(4, dtype=np.int32)
    whole = as_dataset("toy", Contents(images, labels, images[3:], labels[3:], CLASSES))
    assert select_classes(whole, ("bee", "cow")).repeats == ()
    (found,) = select_classes(whole, ("dog", "ant")).repeats
    assert (found.kind, found.count) == ("test", 1)
    assert found.first == ("test image 0 (dog)", "train image 3 (dog)")


def test_parts_of_the_synthetic_set_are_synthetic():
    assert is_synthetic("synthetic-5of10")
    assert not is_synthetic("cifar10-5of10")
    assert not is_synthetic("folder-synthetic")
