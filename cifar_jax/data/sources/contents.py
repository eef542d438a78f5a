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
    """Options of reading an image folder.

    Attributes:
        resize: allow images that are not 32x32.
        test_split: name of the folder with the test images.
        white_level: grey value of white in files of more than 8 bits; None: the format's.
    """

    resize: bool = False
    test_split: str = "test"
    white_level: float | None = None


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
        name: safe in a file name: "cifar10", "synthetic" or "folder-<NAME>".
        train_images: uint8 (N, 32, 32, 3), RGB; read-only and memory-mapped when cached.
        train_labels: int32 (N,), indices into `classes`.
        test_images: uint8 (M, 32, 32, 3).
        test_labels: int32 (M,).
        classes: the class names, in the order of the labels.
        fingerprint: SHA-256 in hex over pixels, labels and class names; see `fingerprint`.
        notice: text of a banner that explains why other images are used instead, or None.
        notes: lines on skipped or changed images, for the terminal and the results.
        repeats: images with equal pixels.
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


ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def fingerprint(contents: Contents) -> str:
    """Return the SHA-256, in hex, of the class names (as JSON) and each array's shape and bytes.

    Labels are hashed as little-endian int32, so that the value is the same on every machine.
    """
    digest = hashlib.sha256(json.dumps(list(contents.classes)).encode())
    for name in ARRAYS:
        array = getattr(contents, name)
        plain = np.ascontiguousarray(array, np.uint8 if name.endswith("images") else "<i4")
        digest.update(f"{name} {plain.shape}".encode())
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
    )


def silent(description: str, done: int, total: int, /) -> None:
    """Ignore the progress."""


Build = Callable[[], Contents]
