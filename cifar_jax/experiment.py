"""From a config to the arguments of the training program."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cifar_jax.combinations import milestones
from cifar_jax.config import Config, ModelConfig, TrainingConfig
from cifar_jax.data.dataset import Dataset, load
from cifar_jax.data.splits import train_val_split
from cifar_jax.errors import UserError
from cifar_jax.models.cnn import CNN
from cifar_jax.training.loop import HostData
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import Regularisers, TrainData, TrainSpec

ProgressCallback = Callable[[str, int, int], None]

# Batch size for which a linearly scaled learning rate is given; the protocol's.
REFERENCE_BATCH = 128


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
    data = config.data
    train, val = train_val_split(len(dataset.train_labels), data.val_examples, data.split_seed)
    if data.train_examples is not None:
        if data.train_examples > len(train):
            raise UserError(
                f"--train-examples {data.train_examples}: {dataset.name} has {len(train)} "
                f"training images beside {len(val)} for validation"
            )
        train = train[: data.train_examples]
    return train, val


def check_norm(model: ModelConfig) -> None:
    """Refuse groups that the channels cannot be divided into.

    Raises:
        UserError: naming them.
    """
    if model.norm == "group" and CNN.widths[0] % model.norm_groups:
        raise UserError(
            f"--norm-groups {model.norm_groups}: must divide {CNN.widths[0]}, the channels of the "
            "first layer"
        )


def check_batches(config: Config, n_train: int) -> None:
    """Refuse a batch size that `n_train` images cannot fill, or that leaves a batch of one.

    Raises:
        UserError: naming it.
    """
    batch = config.training.batch_size
    if batch > n_train:
        raise UserError(f"--batch-size {batch}: must be at most the {n_train} training images")
    if config.model.norm == "batch" and n_train % batch == 1:
        raise UserError(
            f"--batch-size {batch}: the last batch of {n_train} images would be a single one, "
            "which has no batch variance; change it or --train-examples"
        )


@dataclass(frozen=True)
class Prepared:
    """The data of a config, split and on the device.

    Attributes:
        config: with dataset and class count made explicit.
        dataset: all of it, on the host.
        train_rows, val_rows: rows of its training images, integers.
        data: what lives on the device; no training images where they are streamed.
    """

    config: Config
    dataset: Dataset
    train_rows: np.ndarray
    val_rows: np.ndarray
    data: TrainData

    @property
    def host(self) -> HostData:
        """The training images on the host."""
        return HostData(self.dataset.train_images, self.dataset.train_labels, self.train_rows)

    def record(self) -> dict[str, Any]:
        """What results say about the data."""
        return {
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "n_train": len(self.train_rows),
            "n_val": len(self.val_rows),
            "n_test": len(self.dataset.test_labels),
            "classes": list(self.dataset.classes),
        }


def prepare(config: Config, progress: ProgressCallback | None = None) -> Prepared:
    """Load the data of a config, split them and put them on the device.

    Raises:
        UserError: if they cannot be had or do not fit the config.
    """
    return place(*open_dataset(config, progress))


def place(config: Config, dataset: Dataset) -> Prepared:
    """Split a config's dataset and put it on the device.

    Raises:
        UserError: if it does not fit the config.
    """
    train, val = split_rows(config, dataset)
    check_norm(config.model)
    check_batches(config, len(train))
    images, labels = dataset.train_images, dataset.train_labels
    resident = train[:0] if config.data.pipeline == "stream" else train
    data = TrainData(images[resident], labels[resident], images[val], labels[val])
    return Prepared(config, dataset, train, val, jax.device_put(data))


def run_directory(config: Config, dataset: Dataset) -> Path:
    """Default directory of a run: `runs/[<name>-]<dataset>-<model>-<norm>-seed<seed>`."""
    prefix = f"{config.name}-" if config.name else ""
    model = config.model
    return Path("runs") / (
        f"{prefix}{dataset.name}-{model.name}-{model.norm}-seed{config.training.seed}"
    )


def build_model(model: ModelConfig) -> CNN:
    """The network of a config whose class count is known."""
    assert model.num_classes is not None
    return CNN(
        num_classes=model.num_classes,
        norm=model.norm,
        dropout=model.dropout,
        norm_groups=model.norm_groups,
        norm_momentum=model.norm_momentum,
    )


def train_spec(config: Config) -> TrainSpec:
    """The static half of a config whose class count is known."""
    training = config.training
    return TrainSpec(
        model=build_model(config.model),
        batch_size=training.batch_size,
        epochs=training.epochs,
        decay_every=training.decay_every,
        decay_factor=training.decay_factor,
        augment=config.data.augment,
        optimizer=training.optimizer,
        schedule=training.schedule,
        milestones=milestones(training),
        final_fraction=training.final_fraction,
        warmup_epochs=training.warmup_epochs,
        regularisers=Regularisers(
            label_smoothing=training.label_smoothing,
            cutout=training.cutout,
            random_erasing=training.random_erasing,
            erasing_area=(training.erasing_area_low, training.erasing_area_high),
            erasing_ratio=training.erasing_ratio,
            mixup=training.mixup,
        ),
    )


def initial_learning_rate(training: TrainingConfig) -> float:
    """The initial rate, or peak; linear scaling is Goyal et al. 2017, arXiv 1706.02677, 2.1."""
    if training.lr_scaling == "linear":
        return training.learning_rate * training.batch_size / REFERENCE_BATCH
    return training.learning_rate


def hyperparams(config: Config) -> Hyperparams:
    """The traced half of a config, as float32 scalars."""
    training = config.training
    return Hyperparams(
        learning_rate=np.float32(initial_learning_rate(training)),
        momentum=np.float32(training.momentum),
        weight_decay=np.float32(training.weight_decay),
    )
