"""Find, report and drop images with equal pixels."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from cifar_jax.data.sources.contents import Contents, Dataset, Repeats, as_dataset, count_from
from cifar_jax.errors import UserError, counted

Images = Contents | Dataset
Name = Callable[[str, int], str]
"""Names an image by its split, "train" or "test", and its row."""

_NOTES = {
    "test": "{} of the test set also in the training set",
    "labels": "{} of the training set with a copy under another label",
    "test labels": "{} of the test set with a copy under another label",
    "copies": "{} of the training set with an earlier copy in the class (validation may have one)",
}


def _hashes(images: np.ndarray) -> np.ndarray:
    """Return Python's hash of each image's bytes, int64 (N,)."""
    size = int(np.prod(images.shape[1:]))
    found = np.empty(len(images), np.int64)
    for start in range(0, len(images), 1000):  # in blocks: the images may be on disk
        block = np.ascontiguousarray(images[start : start + 1000]).tobytes()
        rows = range(0, len(block), size)
        found[start : start + 1000] = [hash(block[row : row + size]) for row in rows]
    return found


def _groups(images: Images) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the training rows and test rows of every set of equal images, by first row."""
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
    """Return the first row whose label differs from that of `rows[0]`, or None."""
    return next((row for row in rows if labels[row] != labels[rows[0]]), None)


def find_repeats(images: Images, name: Name | None = None) -> tuple[Repeats, ...]:
    """Count images with equal pixels.

    Args:
        images: of a dataset.
        name: names an image; by default by its file, else by its split, row and class.

    Returns:
        One for each kind that occurs:
        "test": test images that are also training images, under any label.
        "labels", "test labels": images of a split that has their pixels under two labels.
        "copies": training images that repeat an earlier one of the same class.
    """
    count = dict.fromkeys(_NOTES, 0)
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
        for kind, pair in sorted(first.items(), key=lambda item: list(_NOTES).index(item[0]))
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
    """Return a line for each kind of equal images.

    Args:
        dataset: before any images are dropped.
        hint: add a line on --drop-duplicates.
    """
    found = [
        f"{_NOTES[r.kind].format(counted(r.count, 'image'))}; the first: {r.first[0]}, equal to "
        f"{r.first[1]}"
        for r in dataset.repeats
    ]
    if hint and any(r.kind != "test labels" for r in dataset.repeats):
        found.append("--drop-duplicates drops these training images, but no test images")
    return found


def drop_repeats(dataset: Dataset) -> Dataset:
    """Drop training images that are also in the test set, have two labels, or repeat another.

    Returns:
        A dataset called `<name>-unique` with its own fingerprint, in memory. If no image is
        dropped, `dataset` with one more note.

    Raises:
        UserError: fewer than two training images remain.
    """
    drop: list[int] = []
    for train, test in _groups(dataset) if dataset.repeats else ():
        keep_first = not test and _other_label(train, dataset.train_labels) is None
        drop += train[keep_first:]
    n = len(dataset.train_labels)
    if n - len(drop) < 2:
        raise UserError(
            f"--drop-duplicates: {n - len(drop)} of {n} training images remain; at least 2 are "
            "needed"
        )
    note = f"--drop-duplicates: {len(drop):,} of {counted(n, 'training image')} dropped"
    all_notes = (*dataset.notes, *notes(dataset, hint=False), note)
    if not drop:
        return dataclasses.replace(dataset, notes=all_notes)
    rows = np.delete(np.arange(n), drop)
    contents = Contents(
        np.asarray(dataset.train_images[rows]),
        np.asarray(dataset.train_labels[rows]),
        dataset.test_images,
        dataset.test_labels,
        dataset.classes,
        notes=all_notes,
        n_val=count_from(rows, dataset),
    )
    unique = as_dataset(f"{dataset.name}-unique", contents)
    return dataclasses.replace(unique, notice=dataset.notice)
