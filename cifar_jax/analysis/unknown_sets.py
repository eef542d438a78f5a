"""Find images that are none of a network's classes."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.analysis.trained import Shared
from cifar_jax.config import tables
from cifar_jax.data.dataset import NAMES, load
from cifar_jax.data.sources import decode, synthetic
from cifar_jax.data.sources.contents import IMAGE_SHAPE, FolderOptions
from cifar_jax.data.sources.folder import dataset_name, image_files
from cifar_jax.data.sources.listing import EXTENSIONS
from cifar_jax.data.subset import is_synthetic
from cifar_jax.errors import UserError
from cifar_jax.runner.prepare import load_dataset

MOST = 10_000  # images of a set
SYNTHETIC = 2_000  # of the built-in set
OTHER_CLASSES = "other classes"


class UnknownSet(NamedTuple):
    """Images of no class of the study: a name for the page, and uint8 (N, H, W, 3)."""

    name: str
    images: np.ndarray

    @property
    def sha256(self) -> str:
        """Digest of the pixels, in hex."""
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()


def _spread(n: int) -> np.ndarray:
    """Return at most `MOST` of n rows, evenly spread, increasing."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST)).astype(int))


def other_classes(shared: Shared) -> UnknownSet | None:
    """Return test images of the classes that `--classes` leaves out, or None."""
    config = shared.moved.set_in(tables.from_dict(shared.study.config, "config"))
    if config.data.classes is None:
        return None
    data = dataclasses.replace(config.data, classes=None)
    whole = load_dataset(data, shared.display.progress)
    trained = [whole.classes.index(name) for name in shared.study.dataset.classes]
    rows = np.flatnonzero(~np.isin(whole.test_labels, trained))
    if not len(rows):
        return None
    return UnknownSet(OTHER_CLASSES, np.asarray(whole.test_images[rows[_spread(len(rows))]]))


def _folder(path: Path, shared: Shared) -> np.ndarray:
    """Decode the images of a folder, of its `test` if it has one. Other sizes are resized."""
    root = path / "test" if (path / "test").is_dir() else path
    names = list(image_files(root))
    if not names:
        raise UserError(f"--unknown {path}: has no images; allowed: {', '.join(EXTENSIONS)}")
    names = [names[row] for row in _spread(len(names))]
    images, _ = decode.decode_files(
        str(root),
        names,
        FolderOptions(resize=True),
        lambda done: shared.display.progress("decoding images", done, len(names)),
    )
    return images


def _named(text: str, shared: Shared) -> UnknownSet:
    """Return the images that `--unknown` names.

    Raises:
        UserError: they cannot be read, or are the study's own.
    """
    if text in NAMES and text != "auto":
        if text == shared.study.dataset.name.partition("-")[0]:
            raise UserError(f"--unknown {text}: these are the study's own images")
        found = load(text, data_dir=shared.moved.data_dir, progress=shared.display.progress)
        return UnknownSet(text, np.asarray(found.test_images[_spread(len(found.test_labels))]))
    path = Path(os.path.expanduser(text))
    if not path.is_dir():
        allowed = ", ".join(name for name in NAMES if name != "auto")
        raise UserError(
            f"--unknown {text}: no such dataset or folder; allowed: {allowed}, or a folder of "
            "images"
        )
    return UnknownSet(dataset_name(path).removeprefix("folder-"), _folder(path, shared))


def find_sets(shared: Shared) -> list[UnknownSet]:
    """Return all images of no class of a study: given ones, other classes, built-in ones.

    Raises:
        UserError: images of `--unknown` cannot be used.
        Lacking: the study's own images were not found.
    """
    shape = shared.images.test_images.shape[1:]
    found = [_named(text, shared) for text in shared.request.unknown]
    for given in found:
        if given.images.shape[1:] != shape:
            size = "x".join(map(str, given.images.shape[1:]))
            raise UserError(
                f"--unknown {given.name}: has images of {size}, the networks take "
                f"{'x'.join(map(str, shape))}"
            )
    if (others := other_classes(shared)) is not None:
        found.append(others)
    own = is_synthetic(shared.study.dataset.name)
    if shape == IMAGE_SHAPE and not own and "synthetic" not in shared.request.unknown:
        drawn = synthetic.generate(0, SYNTHETIC, progress=shared.display.progress)
        found.append(UnknownSet("synthetic", drawn.test_images))
    shared.display.end_progress()
    return _with_different_names(found)


def _with_different_names(sets: list[UnknownSet]) -> list[UnknownSet]:
    names = [of.name for of in sets]
    return [
        of._replace(name=f"{of.name} {names[: at + 1].count(of.name)}")
        if names.count(of.name) > 1
        else of
        for at, of in enumerate(sets)
    ]
