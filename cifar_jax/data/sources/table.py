"""Load images that a CSV table names, with columns `file`, `label` and `split`.

`split` is train, val or test. A file's path is relative to the table's folder. The order is that of
the table; validation images come last. Other columns are ignored.
"""

import csv
import dataclasses
import hashlib
import io
import os
from pathlib import Path

import numpy as np

from cifar_jax.data.sources import decode
from cifar_jax.data.sources.cache import open_or_build, safe_name
from cifar_jax.data.sources.contents import (
    PLAIN,
    Contents,
    Dataset,
    FolderOptions,
    Progress,
    silent,
)
from cifar_jax.data.sources.listing import MOST_CLASSES
from cifar_jax.errors import UserError, counted, shown
from cifar_jax.inputs import is_name, read_bytes

LARGEST = 256 << 20  # bytes
COLUMNS = ("file", "label", "split")
SPLITS = ("train", "val", "test")
Row = tuple[str, str, str]
"""File, label and split."""


def _text(path: Path) -> str:
    try:
        return read_bytes(path, LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"--dataset {path}: cannot be read ({reason})") from None


def _checked(row: dict[str, str | None], where: str) -> Row:
    """Return a row of the table.

    Raises:
        UserError: beginning with `where`: a value is not allowed.
    """
    file, label, split = (row[column] or "" for column in COLUMNS)
    if not is_name(file) or not is_name(label) or not label.isprintable():
        raise UserError(f"{where}: file and label must be printable text, not empty")
    if split not in SPLITS:
        raise UserError(f"{where}: split {shown(split)}; allowed: {', '.join(SPLITS)}")
    if os.path.isabs(file) or ".." in file.split("/") or "\\" in file:
        raise UserError(f"{where}: file {shown(file)}; allowed: a path in the table's folder")
    return file, label, split


def _rows(path: Path) -> list[Row]:
    """Read the table.

    Raises:
        UserError: it is not such a table.
    """
    reader = csv.DictReader(io.StringIO(_text(path)), restval=None)
    try:
        columns = reader.fieldnames or []
        if absent := [column for column in COLUMNS if column not in columns]:
            raise UserError(
                f"--dataset {path}: has no column {', '.join(absent)}; needed: "
                f"{', '.join(COLUMNS)}, in the first line"
            )
        rows = [_checked(row, f"{path}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    seen: set[str] = set()
    for file, _, _ in rows:
        if file in seen:
            raise UserError(f"{path}: the file {shown(file)} has two rows")
        seen.add(file)
    return rows


def _classes(path: Path, rows: list[Row]) -> tuple[str, ...]:
    """Return the class names, sorted, numbers by value.

    Raises:
        UserError: there are too few or too many, or a class or split lacks images.
    """
    by_split = {name: {label for _, label, split in rows if split == name} for name in SPLITS}
    for name in ("train", "test"):
        if not by_split[name]:
            raise UserError(f"{path}: no row has the split {name}")
    names = by_split["train"]
    for name in ("val", "test"):
        if other := sorted(by_split[name] - names):
            raise UserError(f"{path}: the label {shown(other[0])} of split {name} is not in train")
    if not 2 <= len(names) <= MOST_CLASSES:
        count = counted(len(names), "class")
        raise UserError(f"{path}: {count}; allowed: 2 to {MOST_CLASSES}")
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))


def _decoded(path: Path, rows: list[Row], options: FolderOptions, progress: Progress) -> Contents:
    classes = _classes(path, rows)
    by_split = {name: [row for row in rows if row[2] == name] for name in SPLITS}
    ordered = [row for name in SPLITS for row in by_split[name]]
    n = len(by_split["train"]) + len(by_split["val"])
    files = [row[0] for row in ordered]
    images, notes = decode.decode_files(
        str(path.parent),
        files,
        options,
        lambda done: progress("decoding images", done, len(files)),
    )
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[row[1]] for row in ordered], np.int32)
    return Contents(
        images[:n],
        labels[:n],
        images[n:],
        labels[n:],
        classes,
        tuple(notes),
        (files[:n], files[n:]),
        len(by_split["val"]),
    )


def _key(path: Path, rows: list[Row], options: FolderOptions) -> str:
    """Return a digest that changes when the table or a file is edited."""
    digest = hashlib.sha256(f"{decode.VERSION} {options}".encode())
    for file, label, split in rows:
        try:
            status = os.stat(path.parent / file)
        except OSError as error:
            raise UserError(f"{path.parent / file}: cannot be read ({error.strerror})") from None
        digest.update(f"\0{file}\0{label}\0{split}\0".encode())
        digest.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
    return digest.hexdigest()[:32]


def load(
    path: str | Path,
    root: Path,
    *,
    options: FolderOptions = PLAIN,
    progress: Progress = silent,
) -> Dataset:
    """Open the images of a table. They are decoded on first use, and after a change.

    Args:
        path: of the CSV file.
        root: the cache directory.
        options: of reading; the splits are those of the table.
        progress: receives the number of decoded images.

    Raises:
        UserError: the table or files cannot be used; the message names them.
        MachineError: memory or disk do not suffice.
    """
    path = Path(os.path.expanduser(path)).resolve()
    options = dataclasses.replace(options, stream=False)
    rows = _rows(path)
    name = f"table-{safe_name(path.stem)}"
    where = hashlib.sha256(os.fsencode(path) + f"\0{options}".encode()).hexdigest()[:12]
    family = f"{name}-{where}-"
    return open_or_build(
        root,
        family + _key(path, rows, options),
        name,
        lambda: _decoded(path, rows, options, progress),
        family=family,
    )
