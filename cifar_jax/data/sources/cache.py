"""Cache of decoded images: memory-mapped .npy files, checked by their fingerprint.

An entry is a directory `<cache root>/<source>-<key>/` with one .npy file per array and
`contents.json`. It is written under a temporary name and renamed. So readers never see a partial
entry, and two processes cannot mix their files.
"""

import dataclasses
import json
import os
import re
import shutil
import stat
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.data.repeats import find_repeats
from cifar_jax.data.sources.contents import (
    ARRAYS,
    Build,
    Contents,
    Dataset,
    Repeats,
    as_dataset,
    fingerprint,
)
from cifar_jax.errors import MachineError, UserError
from cifar_jax.failures import FULL, is_lack
from cifar_jax.inputs import expand_home
from cifar_jax.storage import read_sealed, seal, temporary_directory

FORMAT = 1
# Whether to raise `NotCached` instead of building an entry.
only_cached: ContextVar[bool] = ContextVar("only_cached", default=False)
_RECORD = "contents.json"
_LIGHT = ARRAYS[1:]  # all but the training images


class NotCached(Exception):
    """An entry is absent or damaged, and `only_cached` is set."""


def _homeless_path() -> Path:
    """Return the path of the cache for a user without a home directory."""
    return Path(tempfile.gettempdir()) / f"cifar_jax-{os.getuid()}"


def is_homeless(root: Path) -> bool:
    """Return whether `root` is the cache for users without a home directory."""
    return root == _homeless_path()


def _homeless_root() -> Path:
    """Make the cache for a user without a home directory.

    It contains programs, so only this user may write to it.

    Raises:
        UserError: it cannot be made, or another user can write to it.
    """
    root = _homeless_path()
    advice = "no home directory; set CIFAR_JAX_CACHE to a directory for the cache"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise UserError(f"{root}: cannot be made ({error.strerror}); {advice}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(f"{root}: others can change it, so it is not used as the cache; {advice}")
    return root


def cache_root() -> Path:
    """Return the directory of decoded datasets.

    It is $CIFAR_JAX_CACHE, else $XDG_CACHE_HOME/cifar_jax, else ~/.cache/cifar_jax. Without a home
    directory it is <temporary directory>/cifar_jax-<uid>.
    """
    if own := os.environ.get("CIFAR_JAX_CACHE"):
        return expand_home(own, "CIFAR_JAX_CACHE")
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return expand_home(shared, "XDG_CACHE_HOME") / "cifar_jax"
    try:
        return Path("~/.cache/cifar_jax").expanduser()
    except RuntimeError:
        return _homeless_root()


def _valid(contents: Contents) -> bool:
    for split in ("train", "test"):
        images = getattr(contents, f"{split}_images")
        labels = getattr(contents, f"{split}_labels")
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            return False
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            return False
    same = contents.train_images.shape[1:] == contents.test_images.shape[1:]
    return same and len(contents.classes) >= 2


def _repeats(record: dict[str, Any], contents: Contents) -> tuple[Repeats, ...]:
    """Return the recorded equal images. Entries of older versions lack them."""
    if "repeats" not in record:
        return find_repeats(contents)
    return tuple(
        Repeats(row["kind"], row["count"], (row["first"][0], row["first"][1]))
        for row in record["repeats"]
    )


def read(entry: Path, name: str, train_images: Any = None) -> Dataset | None:
    """Open a cache entry. Return None if it is absent, damaged or of another format.

    Every byte of the entry is read once, for the recorded fingerprint.

    Args:
        entry: the directory.
        name: of the dataset.
        train_images: see `open_or_build`.
    """
    whole = train_images is None
    stored = ARRAYS if whole else _LIGHT
    try:
        record = read_sealed(entry / _RECORD)
        if record["format"] != FORMAT:
            return None
        arrays: dict[str, Any] = {} if whole else {"train_images": train_images}
        for array in stored:
            arrays[array] = np.load(entry / f"{array}.npy", mmap_mode="r", allow_pickle=False)
        notes = tuple(record.get("notes", ()))
        contents = Contents(
            **arrays, classes=tuple(record["classes"]), notes=notes, n_val=record.get("n_val", 0)
        )
        known = record["fingerprint" if whole else "light"]
        if not _valid(contents) or fingerprint(contents, stored) != known:
            return None
        dataset = as_dataset(name, contents, record["fingerprint"])
        return dataclasses.replace(dataset, repeats=_repeats(record, contents))
    except Exception as error:  # NumPy raises many types on a damaged header.
        if is_lack(error):
            raise
        return None


def _save(path: Path, array: np.ndarray) -> None:
    """Write a .npy file. Its error shows a full disk; that of `np.save` does not."""
    plain = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
        file.write(plain.data)


def _write(entry: Path, contents: Contents) -> None:
    """Write an entry under a temporary name and rename it, replacing an older one."""
    with temporary_directory(entry.parent) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        whole = isinstance(contents.train_images, np.ndarray)
        for array in ARRAYS if whole else _LIGHT:
            _save(new / f"{array}.npy", getattr(contents, array))
        record: dict[str, Any] = {
            "format": FORMAT,
            "classes": list(contents.classes),
            "fingerprint": fingerprint(contents),
            "notes": list(contents.notes),
            "n_val": contents.n_val,
            "repeats": [dataclasses.asdict(r) for r in (find_repeats(contents) if whole else ())],
        }
        if not whole:
            record["light"] = fingerprint(contents, _LIGHT)
        text = json.dumps(seal(record), indent=1) + "\n"
        (new / _RECORD).write_text(text, encoding="utf-8")
        if entry.exists():
            os.replace(entry, old)
        os.replace(new, entry)


def _unwritable(root: Path, error: OSError | str) -> UserError:
    full = isinstance(error, OSError) and error.errno in FULL
    reason = error if isinstance(error, str) else error.strerror or str(error)
    return (MachineError if full else UserError)(
        f"{root}: the cache directory cannot be written ({reason}); "
        "set CIFAR_JAX_CACHE to a writable directory"
    )


def _check_writable(root: Path) -> None:
    """Make the cache directory.

    Raises:
        UserError: it cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise _unwritable(root, error) from None


def safe_name(text: str) -> str:
    """Return text as a part of a dataset's name: at most 64 letters, digits, `.` and `_`."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("._")[:64] or "images"


def open_or_build(
    root: Path, entry: str, name: str, build: Build, *, family: str = "", train_images: Any = None
) -> Dataset:
    """Open a cache entry. If it is absent or damaged, build it.

    Args:
        root: the cache directory, made if it is missing.
        entry: name of the entry, unique for the contents.
        name: name of the dataset.
        build: makes the contents. Its errors pass through.
        family: prefix of older entries that a new one replaces; "" means none.
        train_images: images that stay in their files: uint8 (N, H, W, C), indexed like an array.
            The entry then has only the other arrays.

    Raises:
        NotCached: it would be built, and `only_cached` is set.
        UserError: the cache cannot be written.
    """
    path = root / entry
    if (found := read(path, name, train_images)) is not None:
        return found
    if only_cached.get():
        raise NotCached
    _check_writable(root)  # Before the slow work.
    contents = build()
    failure: OSError | str = ""
    for _ in range(3):
        # An attempt can fail because another process builds the same entry.
        try:
            _write(path, contents)
        except OSError as error:
            if (found := read(path, name, train_images)) is not None:
                return found
            failure = error
            continue
        if family:
            for older in root.iterdir():
                if older.name.startswith(family) and older != path:
                    shutil.rmtree(older, ignore_errors=True)
        if (found := read(path, name, train_images)) is not None:
            return found
        failure = "the written files could not be read back"
    raise _unwritable(root, failure)
