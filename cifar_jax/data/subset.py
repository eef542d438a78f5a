"""Some classes of a dataset, as a dataset of its own."""

import dataclasses

import numpy as np

from cifar_jax.data.sources.contents import Contents, Dataset, as_dataset
from cifar_jax.errors import UserError


def parse_classes(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Class names separated by commas.

    Raises:
        UserError: if one is unknown or named twice, or there are fewer than two.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise UserError(f"--classes: {name!r} is not a class; there are: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UserError(f"--classes {text}: a class is named twice")
    if len(names) < 2:
        raise UserError(f"--classes {text}: needs at least two classes, separated by commas")
    return names


def is_synthetic(name: str) -> bool:
    """Whether a dataset of this name is the built-in one, or some of its classes."""
    return name == "synthetic" or name.startswith("synthetic-")


def select_classes(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """The images of some classes, in the dataset's order, labels numbered as the names are.

    Args:
        dataset: all of it.
        names: of its classes.

    Returns:
        A dataset called `<name>-<k>of<n>` with a fingerprint of its own, in memory.
    """
    number = np.full(len(dataset.classes), -1, np.int32)
    for new, name in enumerate(names):
        number[dataset.classes.index(name)] = new

    def chosen(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        renumbered = number[labels]
        rows = np.flatnonzero(renumbered >= 0)
        return np.asarray(images[rows]), renumbered[rows]

    train, test = (
        chosen(getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels"))
        for split in ("train", "test")
    )
    contents = Contents(*train, *test, classes=names)
    selected = as_dataset(f"{dataset.name}-{len(names)}of{len(dataset.classes)}", contents)
    return dataclasses.replace(selected, notice=dataset.notice)
