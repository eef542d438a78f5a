"""From a config to the arguments of the training program."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.config import Config
from cifar_jax.data.dataset import Dataset, load
from cifar_jax.data.splits import train_val_split
from cifar_jax.errors import UserError
from cifar_jax.models.cnn import CNN
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainSpec

ProgressCallback = Callable[[str, int, int], None]


def open_dataset(
    config: Config, progress: ProgressCallback | None = None
) -> tuple[Config, Dataset]:
    """Load the dataset of a config, and the config with dataset and class count made explicit.

    Raises:
        UserError: if it cannot be had or does not fit the config.
    """
    data = config.data
    dataset = load(data.dataset, data_dir=data.data_dir, resize=data.resize, progress=progress)
    classes = len(dataset.classes)
    if config.model.num_classes not in (None, classes):
        raise UserError(
            f"--num-classes {config.model.num_classes}: {dataset.name} has {classes} classes"
        )
    source = dataset.name if data.dataset == "auto" else data.dataset
    if dataset.name.startswith("folder-"):
        source = str(Path(source).expanduser().absolute())
    return (
        dataclasses.replace(
            config,
            data=dataclasses.replace(data, dataset=source),
            model=dataclasses.replace(config.model, num_classes=classes),
        ),
        dataset,
    )


def split_rows(config: Config, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the validation images.

    Raises:
        UserError: if the sizes that the config asks for do not fit the dataset.
    """
    data, batch = config.data, config.training.batch_size
    train, val = train_val_split(len(dataset.train_labels), data.val_examples, data.split_seed)
    if data.train_examples is not None:
        if data.train_examples > len(train):
            raise UserError(
                f"--train-examples {data.train_examples}: {dataset.name} has {len(train)} "
                f"training images beside {len(val)} for validation"
            )
        train = train[: data.train_examples]
    if batch > len(train):
        raise UserError(f"--batch-size {batch}: must be at most the {len(train)} training images")
    if config.model.norm == "batch" and len(train) % batch == 1:
        raise UserError(
            f"--batch-size {batch}: the last batch of {len(train)} images would be a single one, "
            "which has no batch variance; change it or --train-examples"
        )
    return train, val


def run_directory(config: Config, dataset: Dataset) -> Path:
    """Default directory of a run: `runs/[<name>-]<dataset>-<model>-<norm>-seed<seed>`."""
    prefix = f"{config.name}-" if config.name else ""
    model = config.model
    return Path("runs") / (
        f"{prefix}{dataset.name}-{model.name}-{model.norm}-seed{config.training.seed}"
    )


def train_spec(config: Config) -> TrainSpec:
    """The static half of a config whose class count is known."""
    training, model = config.training, config.model
    assert model.num_classes is not None
    return TrainSpec(
        model=CNN(num_classes=model.num_classes, norm=model.norm, dropout=model.dropout),
        batch_size=training.batch_size,
        epochs=training.epochs,
        decay_every=training.decay_every,
        decay_factor=training.decay_factor,
        augment=config.data.augment,
    )


def hyperparams(config: Config) -> Hyperparams:
    """The traced half of a config, as float32 scalars."""
    training = config.training
    return Hyperparams(
        learning_rate=np.float32(training.learning_rate),
        momentum=np.float32(training.momentum),
        weight_decay=np.float32(training.weight_decay),
    )


def dataset_record(dataset: Dataset, n_train: int, n_val: int) -> dict[str, Any]:
    """What results say about the data."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "n_train": n_train,
        "n_val": n_val,
        "n_test": len(dataset.test_labels),
        "classes": list(dataset.classes),
    }
