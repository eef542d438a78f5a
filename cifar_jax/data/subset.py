"""Select some classes of a dataset."""

import csv
import dataclasses

import numpy as np

from cifar_jax.data.repeats import find_repeats
from cifar_jax.data.sources.contents import Contents, Dataset, as_dataset, count_from
from cifar_jax.errors import UserError


def _split_names(text: str, known: tuple[str, ...]) -> list[str] | None:
    """Split `text` at commas into names of known classes, or return None.

    A name may contain commas. Of several names that match, the longest counts.
    """
    parts = text.split(",")
    names: list[list[str] | None] = [None] * len(parts) + [[]]
    for start in reversed(range(len(parts))):
        for end in range(len(parts), start, -1):
            name, following = ",".join(parts[start:end]).strip(), names[end]
            if following is not None and name in known:
                names[start] = [name, *following]
                break
    return names[0]


def parse_classes(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Parse class names separated by commas. Double quotes may enclose a name with a comma.

    Raises:
        UserError: a class is unknown or named twice, or there are fewer than two.
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
            raise UserError(f"--classes: {name!r} is not a class; allowed: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UserError(f"--classes {text}: a class is named twice")
    if len(names) < 2:
        raise UserError(f"--classes {text}: needs at least two classes, separated by commas")
    return names


def is_synthetic(name: str) -> bool:
    """Return whether this name is that of the built-in dataset or of a subset."""
    return name == "synthetic" or name.startswith("synthetic-")


def select_classes(dataset: Dataset, names: tuple[str, ...], total: int | None = None) -> Dataset:
    """Select the images of some classes, in the dataset's order.

    Args:
        dataset: with all classes.
        names: of the classes to select. A label is an index into them.
        total: number of all classes; None: that of `dataset`.

    Returns:
        A dataset called `<name>-<k>of<total>` with its own fingerprint, in memory.
    """
    number = np.full(len(dataset.classes), -1, np.int32)
    for new, name in enumerate(names):
        number[dataset.classes.index(name)] = new
    rows = {
        split: np.flatnonzero(number[getattr(dataset, f"{split}_labels")] >= 0)
        for split in ("train", "test")
    }

    def name_of(split: str, row: int) -> str:
        return f"{split} image {rows[split][row]} ({names[labels[split][row]]})"

    labels = {split: number[getattr(dataset, f"{split}_labels")[rows[split]]] for split in rows}
    contents = Contents(
        np.asarray(dataset.train_images[rows["train"]]),
        labels["train"],
        np.asarray(dataset.test_images[rows["test"]]),
        labels["test"],
        names,
        dataset.notes,
        n_val=count_from(rows["train"], dataset),
    )
    whole = len(names) == len(dataset.classes)
    return dataclasses.replace(
        as_dataset(f"{dataset.name}-{len(names)}of{total or len(dataset.classes)}", contents),
        notice=dataset.notice,
        repeats=dataset.repeats if whole else find_repeats(contents, name_of),
    )
