"""From a config to data: what is said about them, and what is made explicit."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cifar_jax.commands.train import open_data
from cifar_jax.config import tables
from cifar_jax.config.changes import changes
from cifar_jax.config.settings import Config, DataConfig, ModelConfig, TrainingConfig
from cifar_jax.errors import UserError
from cifar_jax.runner.console import Display
from cifar_jax.runner.prepare import Prepared, open_dataset, split_dataset

pytestmark = pytest.mark.usefixtures("cache", "blank_figures")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 10 + 3 images each, with oddities; one training image is in the test set too."""
    root = tmp_path_factory.mktemp("odd") / "odd"
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 3)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(root / "train" / "cat" / "clear.png")
    shutil.copy(root / "train" / "dog" / "0.png", root / "test" / "dog" / "same.png")
    (root / "train" / "cat" / "labels.csv").write_text("a,b")
    return root


def shown(config: Config) -> tuple[Prepared, list[str]]:
    """The data, and the lines on the terminal but for those of progress."""
    stream = io.StringIO()
    prepared = open_data(config, Display(Console(file=stream, soft_wrap=True)))
    lines = stream.getvalue().splitlines()
    return prepared, [line for line in lines if not line.startswith("decoding")]


SAID = [
    "skipped 1 entry that is not an image; the first: train/cat/labels.csv",
    "1 image of one constant colour; the first: train/cat/clear.png",
    "1 image with transparent pixels, blended with white; the first: train/cat/clear.png",
    "1 image of the test set also in the training set; the first: test/dog/same.png, equal to "
    "train/dog/0.png",
]
HINT = "--drop-duplicates drops these training images, but no test images"


def test_what_was_found_is_said_at_every_start_and_recorded(images: Path) -> None:
    sizes = [
        "--val-examples: 4 instead of 5,000, for 21 images",
        "--batch-size: 17 instead of 128, for 17 images to train on",
    ]
    config = Config(data=DataConfig(dataset=str(images)))
    for _ in range(2):
        prepared, lines = shown(config)
        assert lines == [*SAID, HINT, *sizes]
        assert prepared.record().notes == tuple(lines)


def test_duplicates_are_dropped_and_recorded(images: Path) -> None:
    given = TrainingConfig(batch_size=4)
    data = DataConfig(dataset=str(images), val_examples=4, drop_duplicates=True)
    prepared, lines = shown(Config(data=data, training=given))
    assert lines == [*SAID, "--drop-duplicates: 1 of 21 training images dropped"]
    record = prepared.record()
    assert (record.name, record.n_train, record.n_test) == ("folder-odd-unique", 16, 7)
    assert prepared.config.data.drop_duplicates
    whole, _ = shown(Config(data=dataclasses.replace(data, drop_duplicates=False), training=given))
    assert record.fingerprint != whole.record().fingerprint


def test_the_written_config_has_the_resolved_sizes(images: Path) -> None:
    resolved, dataset = open_dataset(Config(data=DataConfig(dataset=str(images))))
    assert (resolved.data.val_examples, resolved.training.batch_size) == (4, 17)
    again = tables.from_dict(tables.to_dict(resolved), "x")
    assert again == resolved
    assert open_dataset(again)[0] == resolved
    assert changes(again, open_dataset(Config(data=again.data))[0]) == []
    assert not [note for note in open_dataset(again)[1].notes if "instead of" in note]
    assert dataset.fingerprint == open_dataset(again)[1].fingerprint


def test_sizes_that_were_given_are_not_changed(images: Path) -> None:
    config = Config(data=DataConfig(dataset=str(images), val_examples=5000))
    with pytest.raises(UserError, match="--val-examples 5000: must be below the 21 images"):
        split_dataset(*open_dataset(config))
    config = Config(data=DataConfig(dataset=str(images)), training=TrainingConfig(batch_size=128))
    with pytest.raises(UserError, match="--batch-size 128: must be at most the 17"):
        split_dataset(*open_dataset(config))


def test_a_split_without_a_class_is_said(images: Path) -> None:
    data = DataConfig(dataset=str(images), val_examples=1)
    prepared, lines = shown(Config(data=data))
    assert len(prepared.val_rows) == 1
    label = prepared.dataset.train_labels[prepared.val_rows[0]]
    absent = prepared.dataset.classes[1 - label]
    assert lines[-1] == f"the split has no validation image of: {absent}"


def test_batch_norm_of_one_image_is_refused(images: Path) -> None:
    training = TrainingConfig(batch_size=1)
    config = Config(
        data=DataConfig(dataset=str(images)), model=ModelConfig(norm="batch"), training=training
    )
    with pytest.raises(UserError, match="--norm batch: a batch of one image"):
        split_dataset(*open_dataset(config))
