"""Default sizes that fit a small dataset, and classes that its split lacks."""

import dataclasses

import numpy as np
import pytest

from cifar_jax.config.settings import Config, DataConfig, TrainingConfig
from cifar_jax.config.sizes import fit_defaults, split_notes
from cifar_jax.config.tables import to_toml


@pytest.mark.parametrize(
    ("n", "n_val", "batch"),
    [
        (50_000, 5000, 128),
        (25_000, 5000, 128),
        (24_999, 4999, 128),
        (3000, 600, 128),
        (161, 32, 127),  # 129 = 128 + 1 are left
        (80, 16, 64),
        (4, 1, 3),
        (2, 1, 1),
    ],
)
def test_defaults_fit_the_images(n: int, n_val: int, batch: int) -> None:
    found, notes = fit_defaults(Config(), n)
    assert (found.data.val_examples, found.training.batch_size) == (n_val, batch)
    assert [type(found.data.val_examples), type(found.training.batch_size)] == [int, int]
    assert n - n_val >= batch
    assert len(notes) == (n_val < 5000) + (batch < 128)
    if notes:
        assert notes[0] == f"--val-examples: {n_val:,} instead of 5,000, for {n:,} images"


def test_given_sizes_stay() -> None:
    given = Config(data=DataConfig(val_examples=5000), training=TrainingConfig(batch_size=128))
    assert fit_defaults(given, 80) == (given, [])


def test_validation_keeps_the_wanted_training_images() -> None:
    config = Config(data=DataConfig(train_examples=900))
    found, notes = fit_defaults(config, 1000)
    assert found.data.val_examples == 100
    few = dataclasses.replace(config, data=DataConfig(train_examples=40))
    found, notes = fit_defaults(few, 1000)
    assert (found.data.val_examples, found.training.batch_size) == (200, 40)
    assert notes[1] == "--batch-size: 40 instead of 128, for 40 images to train on"


@pytest.mark.parametrize(
    ("swept", "n_val", "batch"),
    [
        ((40, 900), 100, 40),  # Of 40 alone it would be 200, and 900 images would not be left.
        ((900, 40), 100, 40),
        ((65, 66), 200, 63),  # 64 leaves a batch of one image of 65, and 65 one of 66.
        ((None, 100), 200, 100),
    ],
)
def test_defaults_fit_all_values_of_a_sweep(
    swept: tuple[int | None, ...], n_val: int, batch: int
) -> None:
    first = Config(data=DataConfig(train_examples=swept[0]))
    found, _ = fit_defaults(first, 1000, swept)
    assert (found.data.val_examples, found.training.batch_size) == (n_val, batch)


def test_defaults_are_written_as_numbers() -> None:
    assert "val_examples = 5000\n" in to_toml(Config())


def test_classes_without_an_image_are_named() -> None:
    classes = tuple(f"c{i}" for i in range(14))
    parts = {"training": np.arange(14), "validation": np.array([3, 0])}
    (said,) = split_notes(parts, classes)
    assert said == (
        "the split has no validation image of: c1, c2, c4, c5, c6, c7, c8, c9, c10, c11 and 2 more"
    )
