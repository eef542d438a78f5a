"""Load an image folder, `train/<class>/*` and `test/<class>/*`, as a dataset.

The order is fixed: classes by name, images by natural file name (2 before 10). `listing` finds
the files, `decode` reads them.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cifar_jax.data.sources import decode
from cifar_jax.data.sources.cache import open_or_build
from cifar_jax.data.sources.contents import (
    PLAIN,
    Contents,
    Dataset,
    FolderOptions,
    Progress,
    silent,
)
from cifar_jax.data.sources.listing import EXTENSIONS, Listing, list_folder
from cifar_jax.data.subset import select_classes


def dataset_name(folder: Path) -> str:
    """Return `folder-<NAME>`, where NAME is the folder's name, made safe for a file name."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip(".-")
    return f"folder-{safe[:64] or 'images'}"


def _key(folder: Path, listing: Listing, options: FolderOptions) -> str:
    """Return a digest that changes when a file is added, removed, renamed or edited."""
    digest = hashlib.sha256(f"{decode.VERSION} {options}".encode())
    digest.update(os.fsencode(folder))
    for classes in listing.files.values():
        for name, files in classes.items():
            digest.update(b"\0" + os.fsencode(name))
            for file in files:
                times = f"\0{file.size} {file.mtime_ns} {file.ctime_ns} "
                digest.update(times.encode() + os.fsencode(file.path))
    return digest.hexdigest()[:32]


def _family(folder: Path, options: FolderOptions, classes: str | None) -> str:
    """Return the name prefix of the cache entries that a new one replaces."""
    chosen = f"\0{options}\0{classes}"
    default = classes is None and options == FolderOptions(resize=options.resize)
    where = hashlib.sha256(os.fsencode(folder) + os.fsencode("" if default else chosen))
    how = "resized" if options.resize else "plain"
    return f"{dataset_name(folder)}-{where.hexdigest()[:12]}-{how}-"


def natural_order(path: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key of a file name that orders numbers by value: 2 before 10."""
    name = os.path.basename(path)
    parts = re.split(r"([0-9]+)", name)
    # Text is at even positions and numbers at odd ones, so positions of two names compare.
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], name


def image_files(folder: Path) -> Iterator[str]:
    """Yield the paths of all images in a folder and its folders, relative to it, in order."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if name[0] != "."), key=natural_order)
        for name in sorted(files, key=natural_order):
            if name[0] != "." and name.rpartition(".")[2].lower() in EXTENSIONS:
                yield os.path.relpath(os.path.join(where, name), folder)


def _decode_listing(
    folder: Path, listing: Listing, options: FolderOptions, progress: Progress
) -> Contents:
    classes = tuple(sorted(listing.names))
    paths: dict[str, list[str]] = {}
    labels: dict[str, np.ndarray] = {}
    for split, files in listing.files.items():
        groups = [sorted((f.path for f in files[name]), key=natural_order) for name in classes]
        paths[split] = [path for group in groups for path in group]
        counts = [len(group) for group in groups]
        labels[split] = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    val = paths.get("val", [])
    train = [*paths["train"], *val]
    names, n = [*train, *paths["test"]], len(train)
    images, notes = decode.decode_files(
        str(folder),
        names,
        options,
        lambda done: progress("decoding images", done, len(names)),
    )
    return Contents(
        images[:n],
        np.concatenate([labels[split] for split in ("train", "val") if split in labels]),
        images[n:],
        labels["test"],
        classes,
        tuple(notes),
        (train, paths["test"]),
        len(val),
    )


def load(
    folder: str | Path,
    root: Path,
    *,
    options: FolderOptions = PLAIN,
    classes: str | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Open an image folder. It is decoded on first use, and again after a change of its files.

    Args:
        folder: with `train/<class>/*` and `test/<class>/*`, files of `listing.EXTENSIONS`.
        root: the cache directory.
        options: of reading.
        classes: names separated by commas; other classes are neither checked nor decoded.
        progress: receives the number of decoded images.

    Raises:
        UserError: files or folders cannot be used; the message names them.
        MachineError: memory or disk do not suffice.
    """
    folder = Path(os.path.expanduser(folder)).resolve()
    options = dataclasses.replace(options, stream=False)
    listing = list_folder(folder, options, classes)
    name, family = dataset_name(folder), _family(folder, options, classes)
    dataset = open_or_build(
        root,
        family + _key(folder, listing, options),
        name,
        lambda: _decode_listing(folder, listing, options, progress),
        family=family,
    )
    if classes is not None:
        dataset = select_classes(dataset, listing.names, listing.total)
    return dataclasses.replace(dataset, notes=(*listing.notes, *dataset.notes))
