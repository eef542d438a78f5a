"""Open, check and split the data of a config, and put it on the device."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cifar_jax.build import build_model, first_width, layer_rates, parameter_names
from cifar_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from cifar_jax.core.optim import sgd
from cifar_jax.core.optimizers import LayerRates
from cifar_jax.core.train import Data
from cifar_jax.data.dataset import Dataset, FolderOptions, load
from cifar_jax.data.repeats import drop_repeats, notes
from cifar_jax.data.sources import cifar10_archive
from cifar_jax.data.sources.contents import silent
from cifar_jax.data.splits import train_val_split
from cifar_jax.data.subset import is_synthetic
from cifar_jax.errors import UserError, printable
from cifar_jax.runner.programs import HostData
from cifar_jax.sizes import fit_defaults, split_notes
from cifar_jax.training.layerwise import check_patterns

ProgressCallback = Callable[[str, int, int], None]


def open_dataset(
    config: Config, progress: ProgressCallback | None = None
) -> tuple[Config, Dataset]:
    """Load the dataset of a config. Return it with the config completed from it.

    Raises:
        UserError: the dataset is not available or does not fit the config.
    """
    data = config.data
    dataset = load(
        data.dataset,
        data_dir=data.data_dir,
        classes=data.classes,
        options=FolderOptions(data.resize, data.test_split, data.white_level),
        progress=progress or silent,
    )
    _check_folder_is_cifar10(data, dataset)
    source = data.dataset
    if source == "auto":
        source = "synthetic" if is_synthetic(dataset.name) else "cifar10"
    elif dataset.name.startswith("folder-"):
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
    config, fitted = fit_defaults(config, len(dataset.train_labels))
    return config, dataclasses.replace(dataset, notes=(*dataset.notes, *repeats, *fitted))


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
    if data.classes is None and dataset.classes != cifar10_archive.CLASSES:
        raise UserError(
            f"--folder-is-cifar10: the classes of {data.dataset} are not CIFAR-10's, which are "
            f"{', '.join(cifar10_archive.CLASSES)}"
        )


def split_rows(config: Config, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the training and of the validation images.

    Raises:
        UserError: the config's sizes do not fit the dataset.
    """
    data = config.data
    train, val = train_val_split(len(dataset.train_labels), data.val_examples, data.split_seed)
    if data.train_examples is not None:
        if data.train_examples > len(train):
            raise UserError(
                f"--train-examples {data.train_examples}: {dataset.name} has {len(train)} "
                f"training images and {len(val)} for validation"
            )
        train = train[: data.train_examples]
    return train, val


def check_norm(model: ModelConfig) -> None:
    """Check the settings of the norm.

    Raises:
        UserError: the groups do not divide the channels, or no residual block ends in a norm.
    """
    width = first_width(model.name)
    if model.norm == "group" and width % model.norm_groups:
        raise UserError(
            f"--norm-groups {model.norm_groups}: must divide {width}, the channels of the first "
            f"layer of {model.name}"
        )
    if model.zero_init_residual and (model.norm == "none" or not model.name.startswith("resnet")):
        raise UserError(
            f"--zero-init-residual: {model.name} with norm {model.norm} has no residual block that "
            "ends in a norm; allowed with resnet18, 20, 32 and 56 and any norm but none"
        )


def check_precision(training: TrainingConfig) -> None:
    """Check that the device has the precision.

    Raises:
        UserError: it would compute in float32 instead.
    """
    platform = jax.default_backend()
    if training.precision == "tf32" and platform != "gpu":
        raise UserError(
            f"--precision tf32: needs an NVIDIA GPU, and the device is a {platform}; allowed: "
            "float32, bfloat16"
        )


def check_layers(config: Config, image_shape: tuple[int, ...]) -> None:
    """Check the patterns of layers.

    Args:
        config: with its class count known.
        image_shape: (H, W, C).

    Raises:
        UserError: a pattern matches no parameter, or all parameters are frozen.
    """
    rates = layer_rates(config.transfer)
    if not rates:
        return
    names = parameter_names(build_model(config), image_shape)
    check_patterns([pattern for pattern, factor in rates if factor], names, "--lr-multipliers")
    check_patterns([pattern for pattern, factor in rates if not factor], names, "--freeze")
    if not any(LayerRates(sgd, rates).factor(name) for name in names):
        raise UserError(f"--freeze {config.transfer.freeze}: freezes every parameter")


def check_batches(config: Config, n_train: int) -> None:
    """Check the batch size.

    Raises:
        UserError: the batch is larger than `n_train`, or BatchNorm would have a batch of one.
    """
    batch = config.training.batch_size
    if batch > n_train:
        raise UserError(f"--batch-size {batch}: must be at most the {n_train} training images")
    if config.model.norm == "batch" and (batch == 1 or n_train % batch == 1):
        raise UserError(
            f"--batch-size {batch}: the last batch of {n_train} images would be a single one, "
            "which has no batch variance; change it or --train-examples"
            if batch > 1
            else "--norm batch: a batch of one image has no variance; give --batch-size 2 or more"
        )


@dataclass(frozen=True)
class Prepared:
    """The data of a config, split and on the device.

    Attributes:
        config: completed with dataset and class count.
        dataset: all images, on the host.
        train_rows, val_rows: rows of its training images, integers.
        data: on the device; without training images if they are streamed.
    """

    config: Config
    dataset: Dataset
    train_rows: np.ndarray
    val_rows: np.ndarray
    data: Data

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

    def record(self) -> dict[str, Any]:
        """Return the record of the data for the results."""
        return {
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "n_train": len(self.train_rows),
            "n_val": len(self.val_rows),
            "n_test": len(self.dataset.test_labels),
            "classes": list(self.dataset.classes),
            "notes": [printable(note)[:1000] for note in self.notes],
        }


def prepare(config: Config, progress: ProgressCallback | None = None) -> Prepared:
    """Load the data of a config, split them and put them on the device.

    Raises:
        UserError: the data are not available or do not fit the config.
    """
    return place(*open_dataset(config, progress))


def place(config: Config, dataset: Dataset) -> Prepared:
    """Split a config's dataset and put it on the device.

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
    return Prepared(config, dataset, train, val, jax.device_put(data))


def run_directory(config: Config, dataset: Dataset) -> Path:
    """Return a run's default directory: `runs/[<name>-]<dataset>-<model>-<norm>-seed<seed>`."""
    prefix = f"{config.name}-" if config.name else ""
    model = config.model
    return Path("runs") / (
        f"{prefix}{dataset.name}-{model.name}-{model.norm}-seed{config.training.seed}"
    )
