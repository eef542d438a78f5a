"""Types of datasets: uint8 images, labels, class names and a fingerprint."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

IMAGE_SHAPE = (32, 32, 3)


class Progress(Protocol):
    """Receives the progress of a slow step."""

    def __call__(self, description: str, done: int, total: int, /) -> None: ...


@dataclass(frozen=True)
class FolderOptions:
    """Options of reading images in files.

    Attributes:
        resize: allow images of another size.
        test_split: name of the folder or split with the test images.
        white_level: grey value of white in files of more than 8 bits; None: the format's.
        size: height and width of the images, in pixels.
        val_split: name of the folder or split with the validation images, or None.
        stream: leave training images of prepared datasets in their files.
    """

    resize: bool = False
    test_split: str = "test"
    white_level: float | None = None
    size: int = 32
    val_split: str | None = None
    stream: bool = False


PLAIN = FolderOptions()


@dataclass(frozen=True)
class Repeats:
    """Number of images with equal pixels, of one kind; see `repeats.find_repeats`.

    Attributes:
        kind: "test", "labels", "test labels" or "copies".
        count: number of images.
        first: names of the first image and of one equal to it.
    """

    kind: str
    count: int
    first: tuple[str, str]


@dataclass(frozen=True)
class Dataset:
    """Labelled images, split into training and test images.

    Attributes:
        name: safe in a file name: "cifar10", "synthetic", "folder-<NAME>", ...
        train_images: uint8 (N, H, W, C), RGB or grey; read-only and memory-mapped when cached.
        train_labels: int32 (N,), indices into `classes`.
        test_images: uint8 (M, H, W, C).
        test_labels: int32 (M,).
        classes: the class names, in the order of the labels.
        fingerprint: SHA-256 in hex over pixels, labels and class names; see `fingerprint`.
        notice: text of a banner that explains why other images are used instead, or None.
        notes: lines on skipped or changed images, for the terminal and the results.
        repeats: images with equal pixels.
        n_val: number of the user's validation images, the last ones of the training images.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str
    notice: str | None = None
    notes: tuple[str, ...] = ()
    repeats: tuple[Repeats, ...] = ()
    n_val: int = 0


@dataclass(frozen=True)
class Contents:
    """The arrays of a dataset, from a source. Fields as in `Dataset`.

    Attributes:
        files: paths of the training images and of the test images, if they come from files.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    files: tuple[Sequence[str], Sequence[str]] | None = None
    n_val: int = 0


ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_BLOCK = 1000  # images that are hashed together


def fingerprint(contents: Contents, names: Sequence[str] = ARRAYS) -> str:
    """Return the SHA-256, in hex, of the class names (as JSON) and each array's shape and bytes.

    Labels are hashed as little-endian int32, so that the value is the same on every machine.
    """
    digest = hashlib.sha256(json.dumps(list(contents.classes)).encode())
    for name in names:
        array = getattr(contents, name)
        digest.update(f"{name} {array.shape}".encode())
        for start in range(0, len(array), _BLOCK):  # Images may be in files.
            block = array[start : start + _BLOCK]
            plain = np.ascontiguousarray(block, np.uint8 if name.endswith("images") else "<i4")
            digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def as_dataset(name: str, contents: Contents, digest: str | None = None) -> Dataset:
    """Make a dataset of contents. `digest` is their fingerprint if it is known."""
    return Dataset(
        name=name,
        train_images=contents.train_images,
        train_labels=contents.train_labels,
        test_images=contents.test_images,
        test_labels=contents.test_labels,
        classes=contents.classes,
        fingerprint=digest or fingerprint(contents),
        notes=contents.notes,
        n_val=contents.n_val,
    )


def count_from(rows: np.ndarray, dataset: Dataset) -> int:
    """Return how many of these training rows are the user's validation images."""
    return int((rows >= len(dataset.train_labels) - dataset.n_val).sum())


def silent(description: str, done: int, total: int, /) -> None:
    """Ignore the progress."""


Build = Callable[[], Contents]
