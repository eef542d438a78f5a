"""Some classes of a dataset, as a dataset of its own."""

import csv
import dataclasses

import numpy as np

from cifar_jax.data.repeats import find_repeats
from cifar_jax.data.sources.contents import Contents, Dataset, as_dataset
from cifar_jax.errors import UserError


def _split_names(text: str, known: tuple[str, ...]) -> list[str] | None:
    """The names of known classes in `text`, of which some hold commas; None if there are others.

    The longest name counts where several begin alike.
    """
    parts = text.split(",")
    names: list[list[str] | None] = [None] * len(parts) + [[]]
    for start in reversed(range(len(parts))):
        for end in range(len(parts), start, -1):
            name, rest = ",".join(parts[start:end]).strip(), names[end]
            if rest is not None and name in known:
                names[start] = [name, *rest]
                break
    return names[0]


def parse_classes(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Class names separated by commas; one with a comma in it may be in double quotes.

    Raises:
        UserError: if one is unknown or named twice, or there are fewer than two.
    """
    found = _split_names(text, known)
    if found is None:
        try:
            found = [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]
        except csv.Error:
            found = [text]
    names = tuple(found)
    for name in names:
        if name not in known:
            raise UserError(f"--classes: {name!r} is not a class; there are: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UserError(f"--classes {text}: a class is named twice")
    if len(names) < 2:
        raise UserError(f"--classes {text}: needs at least two classes, separated by commas")
    return names


def is_synthetic(name: str) -> bool:
    """Whether a dataset of this name is the built-in one, or some of its images."""
    return name == "synthetic" or name.startswith("synthetic-")


def select_classes(dataset: Dataset, names: tuple[str, ...], total: int | None = None) -> Dataset:
    """The images of some classes, in the dataset's order, labels numbered as the names are.

    Args:
        dataset: all of it.
        names: of its classes.
        total: how many classes there are; None: as many as `dataset` has.

    Returns:
        A dataset called `<name>-<k>of<total>` with a fingerprint of its own, in memory.
    """
    number = np.full(len(dataset.classes), -1, np.int32)
    for new, name in enumerate(names):
        number[dataset.classes.index(name)] = new
    rows = {
        split: np.flatnonzero(number[getattr(dataset, f"{split}_labels")] >= 0)
        for split in ("train", "test")
    }

    def called(split: str, row: int) -> str:
        return f"{split} image {rows[split][row]} ({names[labels[split][row]]})"

    labels = {split: number[getattr(dataset, f"{split}_labels")[rows[split]]] for split in rows}
    contents = Contents(
        np.asarray(dataset.train_images[rows["train"]]),
        labels["train"],
        np.asarray(dataset.test_images[rows["test"]]),
        labels["test"],
        names,
        dataset.notes,
    )
    whole = len(names) == len(dataset.classes)
    return dataclasses.replace(
        as_dataset(f"{dataset.name}-{len(names)}of{total or len(dataset.classes)}", contents),
        notice=dataset.notice,
        repeats=dataset.repeats if whole else find_repeats(contents, called),
    )
