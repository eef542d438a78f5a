"""Load, check and split the data of a config, and put it on the device."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from cifar_jax.config.checks import check_batches, check_layers, check_norm, check_precision
from cifar_jax.config.fields import Fitted
from cifar_jax.config.normalisation import parse_channels, statistics
from cifar_jax.config.settings import Config, DataConfig
from cifar_jax.config.sizes import fit_defaults, split_notes
from cifar_jax.core.train import Data
from cifar_jax.data.dataset import Dataset
from cifar_jax.data.repeats import drop_repeats, notes
from cifar_jax.data.sources import published
from cifar_jax.data.sources.contents import silent
from cifar_jax.data.splits import train_val_split
from cifar_jax.data.subset import is_synthetic
from cifar_jax.errors import UserError, counted, printable
from cifar_jax.runner import early
from cifar_jax.runner.devices import on_all
from cifar_jax.runner.results import DatasetRecord
from cifar_jax.runner.streamed import HostData

ProgressCallback = Callable[[str, int, int], None]
# Datasets that are not flipped, and datasets with CIFAR-10's mean and standard deviation.
DIGITS = ("svhn", "mnist")
AS_CIFAR10 = ("cifar10", "synthetic", "folder", "table")

# Name in `data.dataset` of the images that an experiment file defines.
FILE_IMAGES = "experiment file"


def load_dataset(data: DataConfig, progress: ProgressCallback | None = None) -> Dataset:
    """Load the dataset of a config.

    Raises:
        UserError: the dataset is not available or does not fit the config.
    """
    if data.dataset == FILE_IMAGES:
        raise UserError("these images are in an experiment file, and only training loads it")
    dataset = early.opened(data) or early.open_named(data, progress or silent)
    _check_folder_is_cifar10(data, dataset)
    return dataset


def open_dataset(
    config: Config,
    progress: ProgressCallback | None = None,
    train_examples: Sequence[int | None] = (),
    images: Dataset | None = None,
) -> tuple[Config, Dataset]:
    """Load the dataset of a config. Return the config, completed from it, and the dataset.

    Args:
        config: of a run or study.
        progress: called during slow steps.
        train_examples: those of a sweep, see `sizes.fit_defaults`.
        images: of the experiment file; they replace those of the config.

    Raises:
        UserError: the dataset is not available or does not fit the config.
    """
    data = config.data
    dataset = images or load_dataset(data, progress)
    source = FILE_IMAGES if images else data.dataset
    if source == "auto":
        source = "synthetic" if is_synthetic(dataset.name) else "cifar10"
    elif dataset.name.startswith(("folder-", "table-", "tfds-")):
        source = str(Path(os.path.expanduser(source)).absolute())
    if data.drop_duplicates:
        dataset = drop_repeats(dataset)
    classes = len(dataset.classes)
    if config.model.num_classes not in (None, classes):
        raise UserError(
            f"--num-classes {config.model.num_classes}: {dataset.name} has {classes} classes"
        )
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(data, dataset=source),
        model=dataclasses.replace(config.model, num_classes=classes),
    )
    repeats = () if data.drop_duplicates else notes(dataset)
    config, described = _fit_inputs(config, dataset)
    config = _fit_validation(config, dataset)
    config, fitted = fit_defaults(config, len(dataset.train_labels), train_examples)
    all_notes = (*dataset.notes, *repeats, *described, *fitted)
    return config, dataclasses.replace(dataset, notes=all_notes)


def _fit_inputs(config: Config, dataset: Dataset) -> tuple[Config, list[str]]:
    """Complete flip, mean and std for the images of a config. Return it, and a line on them.

    Raises:
        UserError: mean or std have another number of channels than the images.
    """
    data, base = config.data, dataset.name.partition("-")[0]
    if config.experiment.file is not None:
        return config, []  # The file has its own inputs.
    if base in DIGITS and data.flip is None:
        data = dataclasses.replace(data, flip=False)
    if base not in AS_CIFAR10 and None in (data.mean, data.std):
        mean, std = statistics(dataset.train_images)
        data = dataclasses.replace(data, mean=data.mean or mean, std=data.std or std)
    channels = dataset.train_images.shape[-1]
    for flag, text in (("--mean", data.mean), ("--std", data.std)):
        if text and len(parse_channels(text, flag)) not in (1, channels):
            raise UserError(f"{flag} {text}: the images have {counted(channels, 'channel')}")
    described = []
    if data.mean or data.std:
        flip = "; no flip, because these are digits" if base in DIGITS and not data.flip else ""
        described.append(
            f"normalised by mean {data.mean or 'of CIFAR-10'} and standard deviation "
            f"{data.std or 'of CIFAR-10'}{flip}"
        )
    return dataclasses.replace(config, data=data), described


def _fit_validation(config: Config, dataset: Dataset) -> Config:
    """Set --val-examples to the number of the user's validation images, if there are any.

    Raises:
        UserError: it has another value.
    """
    given = config.data.val_examples
    if not dataset.n_val:
        return config
    if not isinstance(given, Fitted) and given != dataset.n_val:
        raise UserError(
            f"--val-examples {given}: {dataset.name} has {dataset.n_val} validation images of its "
            "own; leave the flag out"
        )
    data = dataclasses.replace(config.data, val_examples=dataset.n_val)
    return dataclasses.replace(config, data=data)


def _check_folder_is_cifar10(data: DataConfig, dataset: Dataset) -> None:
    """Check --folder-is-cifar10.

    Raises:
        UserError: the dataset is not a folder, or its classes are not CIFAR-10's.
    """
    if not data.folder_is_cifar10:
        return
    if not dataset.name.startswith("folder-"):
        raise UserError(
            f"--folder-is-cifar10: --dataset {data.dataset} is not an image folder; give this "
            "flag only with a folder of CIFAR-10's images"
        )
    if data.classes is None and dataset.classes != published.CIFAR10.classes:
        raise UserError(
            f"--folder-is-cifar10: the classes of {data.dataset} are not CIFAR-10's, which are "
            f"{', '.join(published.CIFAR10.classes)}"
        )


def split_rows(config: Config, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training and of the validation images in the dataset.

    Raises:
        UserError: the config's sizes do not fit the dataset.
    """
    data = config.data
    n, own = len(dataset.train_labels), dataset.n_val > 0
    train, val = train_val_split(n, data.val_examples, data.split_seed, own)
    if data.train_examples is not None:
        if data.train_examples > len(train):
            raise UserError(
                f"--train-examples {data.train_examples}: {dataset.name} has {len(train)} "
                f"training images and {len(val)} for validation"
            )
        train = train[: data.train_examples]
    return train, val


@dataclass(frozen=True)
class Prepared:
    """The data of a config, split and on the device.

    Attributes:
        config: completed with dataset and class count.
        dataset: all images, on the host.
        train_rows, val_rows: indices of images in the dataset's training set, integers.
        data: the images on the device. Streamed training images are not there.
        seconds: that loading took.
    """

    config: Config
    dataset: Dataset
    train_rows: np.ndarray
    val_rows: np.ndarray
    data: Data
    seconds: float = 0.0

    @property
    def evaluation(self) -> float:
        """The time of the test images in epochs, roughly: a step is three forward passes."""
        trained = 3 * len(self.train_rows) + len(self.val_rows)
        return len(self.dataset.test_labels) / trained

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on skipped and changed images, and on the split."""
        labels = self.dataset.train_labels
        parts = {"training": labels[self.train_rows], "validation": labels[self.val_rows]}
        return (*self.dataset.notes, *split_notes(parts, self.dataset.classes))

    @property
    def host(self) -> HostData:
        """The training images on the host."""
        return HostData(self.dataset.train_images, self.dataset.train_labels, self.train_rows)

    def first_images(self, count: int) -> np.ndarray:
        """The first training images, uint8 (count, H, W, C)."""
        return self.dataset.train_images[self.train_rows[:count]]

    def record(self) -> DatasetRecord:
        """Return the record of the data in results and checkpoints."""
        return DatasetRecord(
            name=self.dataset.name,
            fingerprint=self.dataset.fingerprint,
            n_train=len(self.train_rows),
            n_val=len(self.val_rows),
            n_test=len(self.dataset.test_labels),
            classes=tuple(self.dataset.classes),
            notes=tuple(printable(note)[:1000] for note in self.notes),
            image_shape=self.dataset.train_images.shape[1:],
        )


def split_dataset(config: Config, dataset: Dataset, mesh: Mesh | None = None) -> Prepared:
    """Split a config's dataset and put it on the device, or on each device of a mesh.

    Raises:
        UserError: it does not fit the config.
    """
    train, val = split_rows(config, dataset)
    check_norm(config.model)
    check_precision(config.training)
    check_layers(config, dataset.train_images.shape[1:])
    check_batches(config, len(train))
    images, labels = dataset.train_images, dataset.train_labels
    resident = train[:0] if config.data.pipeline == "stream" else train
    data = Data(images[resident], labels[resident], images[val], labels[val])
    return Prepared(config, dataset, train, val, on_all(data, mesh))


def run_directory(config: Config, dataset: Dataset) -> Path:
    """Return a run's default directory: `runs/[<name>-]<dataset>-<model>-<norm>-seed<seed>`.

    With an experiment file, its name and the arm replace model and norm.
    """
    prefix = f"{config.name}-" if config.name else ""
    model, file = config.model, config.experiment
    what = f"{model.name}-{model.norm}"
    if file.file is not None:
        what = f"{Path(file.file).stem}-{file.arm}"
    return Path("runs") / f"{prefix}{dataset.name}-{what}-seed{config.training.seed}"
