"""Check and read the archive that CIFAR-10's authors publish.

CIFAR-10, binary version (Krizhevsky, 2009): a gzipped tar of six files of 10,000 records. A record
has one byte of label and 3072 bytes of pixels: a 32x32 plane each of red, green and blue, by rows.

The SHA-256 is checked before reading. The reader does not rely on it: it writes no file, and reads
no more bytes than CIFAR-10 can have.
"""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cifar_jax.data.sources.contents import Contents
from cifar_jax.errors import UserError, shown

FILE_NAME = "cifar-10-binary.tar.gz"
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"{_FOLDER}/data_batch_{i}.bin" for i in range(1, 6))
_TEST_FILES = (f"{_FOLDER}/test_batch.bin",)
_RECORD_BYTES = 1 + 32 * 32 * 3
_MOST_MEMBERS = 32  # the published archive has nine
_SPARE_BYTES = 1 << 20  # for headers, padding and small files
_PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py")


@dataclass(frozen=True)
class Archive:
    """Requirements of an archive.

    Attributes:
        url: where it is published.
        size: in bytes.
        sha256: in hex.
        batch: images in each of its six files.
    """

    url: str
    size: int
    sha256: str
    batch: int


CIFAR10 = Archive(
    url=f"https://www.cs.toronto.edu/~kriz/{FILE_NAME}",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    batch=10_000,
)


def damage(path: Path, archive: Archive) -> str | None:
    """Return in a few words how the file differs from the archive, or None.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size != archive.size:
        return f"it has {size} bytes, not {archive.size}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        return f"its SHA-256 is {digest[:12]}..., not {archive.sha256[:12]}..."
    return None


def reject_pickled(path: Path, what: str) -> None:
    """Raise if `path` is or contains CIFAR-10's "python version", whose batches are pickles.

    Raises:
        UserError: beginning with `what`. Reading a pickle can run any program.
    """
    near = [path.parent / path.name, *(path / name for name in _PICKLED)]
    for found in near:
        if found.name in _PICKLED and os.path.exists(found):
            raise UserError(
                f"{what} {found}: pickled batches are not read, because a pickle can run any "
                f"program; allowed: {FILE_NAME} from {CIFAR10.url}"
            )


class _Limited(io.RawIOBase):
    """Forward-only reader of `source` that fails beyond `most` bytes."""

    def __init__(self, source: gzip.GzipFile, most: int) -> None:
        self._source, self._left = source, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(block)
        if self._left < 0:
            raise tarfile.ReadError("unpacked, it is larger than CIFAR-10")
        return block


def _forbidden(member: tarfile.TarInfo, most: int) -> str | None:
    """Return in a few words why CIFAR-10's archive cannot have this member, or None."""
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        return "a path that leaves the archive's folder"
    if member.issym() or member.islnk():
        return "a link"
    if member.issparse():
        return "a sparse file"
    if not (member.isreg() or member.isdir()):
        return "neither a file nor a folder"
    if not 0 <= member.size <= most:
        return f"a size of {member.size} bytes"
    if _PICKLED[1] in parts:
        return "pickled batches, which can run any program"
    return None


def _batches(path: Path, wanted: int) -> dict[str, np.ndarray]:
    """Return the contents of the six files of `wanted` bytes, by name.

    Raises:
        UserError: the archive has a member that is not allowed.
    """
    found: dict[str, np.ndarray] = {}
    names = _TRAIN_FILES + _TEST_FILES
    most = len(names) * wanted + _SPARE_BYTES
    with (
        gzip.open(path) as unpacked,
        tarfile.open(fileobj=_Limited(unpacked, most), mode="r|") as tar,
    ):
        for number, member in enumerate(tar):
            if number >= _MOST_MEMBERS:
                raise UserError(f"{path}: it has more than {_MOST_MEMBERS} members")
            if reason := _forbidden(member, wanted):
                raise UserError(f"{path}: {shown(member.name)} in it is not allowed: {reason}")
            if member.name not in names:
                continue
            file = tar.extractfile(member)
            if file is None or member.size != wanted or member.name in found:
                raise UserError(f"{path}: {member.name} in it is not one file of {wanted} bytes")
            found[member.name] = np.frombuffer(file.read(wanted), np.uint8)
    return found


def read(path: Path, archive: Archive) -> Contents:
    """Read the images from the archive, in its authors' order.

    Only the six expected files are read, and no file is extracted to disk. Other small files are
    ignored. A path out of the folder, a link, a device, and more bytes or members than CIFAR-10
    has are errors.

    Raises:
        UserError: the file is cut short or has other contents.
    """
    try:
        found = _batches(path, archive.batch * _RECORD_BYTES)
    except UserError:
        raise
    # tarfile also raises ValueError and similar errors for extended headers.
    except (OSError, EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped tar ({error})") from None
    arrays: dict[str, Any] = {}
    for split, names in (("train", _TRAIN_FILES), ("test", _TEST_FILES)):
        if lacking := [name for name in names if name not in found]:
            raise UserError(f"{path}: {lacking[0]} is missing in it")
        records = np.concatenate([found[name] for name in names]).reshape(-1, _RECORD_BYTES)
        labels = records[:, 0].astype(np.int32)
        if labels.max() >= len(CLASSES):
            raise UserError(f"{path}: it has the label {labels.max()}; CIFAR-10 has 0 to 9")
        planes = records[:, 1:].reshape(-1, 3, 32, 32)
        arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        arrays[f"{split}_labels"] = labels
    return Contents(**arrays, classes=CLASSES)
