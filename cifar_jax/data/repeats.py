"""Images of a dataset whose pixels are equal: found, said, and dropped from training."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from cifar_jax.data.sources.contents import Contents, Dataset, Repeats, as_dataset
from cifar_jax.errors import UserError, counted

Images = Contents | Dataset
Name = Callable[[str, int], str]
"""From "train" or "test" and a row to what an image is called."""

_SAID = {
    "test": "{} of the test set also in the training set",
    "labels": "{} of the training set with a copy under another label",
    "test labels": "{} of the test set with a copy under another label",
    "copies": "{} of the training set with an earlier copy in the class (validation may have one)",
}


def _hashes(images: np.ndarray) -> np.ndarray:
    """int64 (N,): Python's hash of each image's bytes; equal images have equal ones."""
    size = int(np.prod(images.shape[1:]))
    found = np.empty(len(images), np.int64)
    for start in range(0, len(images), 1000):  # a few at a time: they may be on disk
        block = np.ascontiguousarray(images[start : start + 1000]).tobytes()
        rows = range(0, len(block), size)
        found[start : start + 1000] = [hash(block[row : row + size]) for row in rows]
    return found


def _groups(images: Images) -> Iterator[tuple[list[int], list[int]]]:
    """Training rows and test rows of every set of two or more equal images, by first row."""
    n = len(images.train_labels)
    hashes = np.concatenate([_hashes(images.train_images), _hashes(images.test_images)])
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    equal: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(counts[inverse] > 1).tolist():
        image = images.train_images[row] if row < n else images.test_images[row - n]
        equal.setdefault(image.tobytes(), []).append(row)
    for rows in equal.values():
        if len(rows) > 1:
            yield [row for row in rows if row < n], [row - n for row in rows if row >= n]


def _other_label(rows: list[int], labels: np.ndarray) -> int | None:
    """The first row with another label than the first row's, if there is one."""
    return next((row for row in rows if labels[row] != labels[rows[0]]), None)


def find_repeats(images: Images, name: Name | None = None) -> tuple[Repeats, ...]:
    """Count images whose pixels are equal.

    Args:
        images: of a dataset.
        name: what to call one of them; by default its file, else its split, row and class.

    Returns:
        At most one of each kind, without empty ones. "test": test images that are training images
        too, whatever their labels. "labels" and "test labels": images of one split whose pixels
        are in that split under two labels. "copies": training images that repeat an earlier one of
        the same class.
    """
    count = dict.fromkeys(_SAID, 0)
    first: dict[str, tuple[tuple[str, int], tuple[str, int]]] = {}

    def add(kind: str, number: int, split: str, row: int, like: tuple[str, int]) -> None:
        count[kind] += number
        first.setdefault(kind, ((split, row), like))

    for train, test in _groups(images):
        if train and test:
            add("test", len(test), "test", test[0], ("train", train[0]))
        if (other := _other_label(train, images.train_labels) if train else None) is not None:
            add("labels", len(train), "train", train[0], ("train", other))
        elif len(train) > 1:
            add("copies", len(train) - 1, "train", train[1], ("train", train[0]))
        if (other := _other_label(test, images.test_labels) if test else None) is not None:
            add("test labels", len(test), "test", test[0], ("test", other))
    call = name or _namer(images)
    return tuple(
        Repeats(kind, count[kind], (call(*pair[0]), call(*pair[1])))
        for kind, pair in sorted(first.items(), key=lambda item: list(_SAID).index(item[0]))
    )


def _namer(images: Images) -> Name:
    files = getattr(images, "files", None)

    def name(split: str, row: int) -> str:
        if files:
            return str(files[split == "test"][row])
        label = getattr(images, f"{split}_labels")[row]
        return f"{split} image {row} ({images.classes[label]})"

    return name


def notes(dataset: Dataset, *, hint: bool = True) -> list[str]:
    """A line for each kind of equal images.

    Args:
        dataset: as it was before any were dropped.
        hint: also say how to drop them.
    """
    found = [
        f"{_SAID[r.kind].format(counted(r.count, 'image'))}; the first: {r.first[0]}, equal to "
        f"{r.first[1]}"
        for r in dataset.repeats
    ]
    if hint and any(r.kind != "test labels" for r in dataset.repeats):
        found.append("--drop-duplicates drops such training images; test images always stay")
    return found


def drop_repeats(dataset: Dataset) -> Dataset:
    """Drop training images that are in the test set too, have two labels, or repeat another.

    Returns:
        A dataset called `<name>-unique` with a fingerprint of its own, in memory; `dataset` with
        another note if nothing is dropped.

    Raises:
        UserError: if fewer than two training images stay.
    """
    drop: list[int] = []
    for train, test in _groups(dataset) if dataset.repeats else ():
        keep_first = not test and _other_label(train, dataset.train_labels) is None
        drop += train[keep_first:]
    n = len(dataset.train_labels)
    if n - len(drop) < 2:
        raise UserError(
            f"--drop-duplicates: leaves {n - len(drop)} of {n} training images; at least 2 are "
            "needed"
        )
    note = f"--drop-duplicates: {len(drop):,} of {counted(n, 'training image')} dropped"
    all_notes = (*dataset.notes, *notes(dataset, hint=False), note)
    if not drop:
        return dataclasses.replace(dataset, notes=all_notes)
    kept = np.delete(np.arange(n), drop)
    contents = Contents(
        np.asarray(dataset.train_images[kept]),
        np.asarray(dataset.train_labels[kept]),
        dataset.test_images,
        dataset.test_labels,
        dataset.classes,
        notes=all_notes,
    )
    unique = as_dataset(f"{dataset.name}-unique", contents)
    return dataclasses.replace(unique, notice=dataset.notice)
