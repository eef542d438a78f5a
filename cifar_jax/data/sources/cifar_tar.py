"""Read the binary archives of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009).

Each is a gzipped tar of files of records. A record of CIFAR-10 has one byte of label, one of
CIFAR-100 has two: coarse, then fine. Then come 3072 bytes of pixels: a 32x32 plane each of red,
green and blue, by rows.

The SHA-256 is checked before reading. The reader does not rely on it: it writes no file, and reads
no more bytes than the dataset can have.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cifar_jax.data.sources.contents import Contents
from cifar_jax.data.sources.spec import Published, check_labels
from cifar_jax.errors import UserError, shown

_PIXELS = 32 * 32 * 3
_MOST_MEMBERS = 32  # the published archives have at most nine
_SPARE_BYTES = 1 << 20  # for headers, padding and small files


@dataclass(frozen=True)
class Layout:
    """The files in an archive, and the labels in a record.

    Attributes:
        train, test: names of the files with records.
        labels: bytes of labels in a record.
        label: the byte that is read, from 0.
        pickled: name of the folder with the same images as pickles, which is refused.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    label: int
    pickled: str


CIFAR10 = Layout(
    tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
    ("cifar-10-batches-bin/test_batch.bin",),
    labels=1,
    label=0,
    pickled="cifar-10-batches-py",
)
COARSE = Layout(
    ("cifar-100-binary/train.bin",),
    ("cifar-100-binary/test.bin",),
    labels=2,
    label=0,
    pickled="cifar-100-python",
)
FINE = replace(COARSE, label=1)


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
            raise tarfile.ReadError("unpacked, it is larger than published")
        return block


def _forbidden(member: tarfile.TarInfo, most: int, pickled: str) -> str | None:
    """Return in a few words why a published archive cannot have this member, or None."""
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
    if pickled in parts:
        return "pickled batches, which can run any program"
    return None


def _batches(path: Path, sizes: dict[str, int], pickled: str) -> dict[str, np.ndarray]:
    """Return the contents of the files of records, by name.

    Args:
        path: of the archive.
        sizes: bytes of each file.
        pickled: see `Layout`.

    Raises:
        UserError: the archive has a member that is not allowed.
    """
    found: dict[str, np.ndarray] = {}
    largest, most = max(sizes.values()), sum(sizes.values()) + _SPARE_BYTES
    with (
        gzip.open(path) as unpacked,
        tarfile.open(fileobj=_Limited(unpacked, most), mode="r|") as tar,
    ):
        for number, member in enumerate(tar):
            if number >= _MOST_MEMBERS:
                raise UserError(f"{path}: it has more than {_MOST_MEMBERS} members")
            if reason := _forbidden(member, largest, pickled):
                raise UserError(f"{path}: {shown(member.name)} in it is not allowed: {reason}")
            wanted = sizes.get(member.name)
            if wanted is None:
                continue
            file = tar.extractfile(member)
            if file is None or member.size != wanted or member.name in found:
                raise UserError(f"{path}: {member.name} in it is not one file of {wanted} bytes")
            found[member.name] = np.frombuffer(file.read(wanted), np.uint8)
    return found


def read(layout: Layout, spec: Published, paths: Sequence[Path]) -> Contents:
    """Read the images from an archive, in its authors' order.

    Only the files of records are read, and no file is extracted to disk. Other small files are
    ignored. A path out of the folder, a link, a device, and more bytes or members than published
    are errors.

    Raises:
        UserError: the file is cut short or has other contents.
    """
    (path,) = paths
    record = layout.labels + _PIXELS
    splits = (("train", layout.train, spec.counts[0]), ("test", layout.test, spec.counts[1]))
    sizes = {name: n // len(names) * record for _, names, n in splits for name in names}
    try:
        found = _batches(path, sizes, layout.pickled)
    # tarfile also raises ValueError and similar errors for extended headers.
    except (OSError, EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped tar ({error})") from None
    arrays: dict[str, Any] = {}
    for split, names, _ in splits:
        if lacking := [name for name in names if name not in found]:
            raise UserError(f"{path}: {lacking[0]} is missing in it")
        records = np.concatenate([found[name] for name in names]).reshape(-1, record)
        labels = records[:, layout.label].astype(np.int32)
        check_labels(path, labels, spec)
        planes = records[:, layout.labels :].reshape(-1, 3, 32, 32)
        arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        arrays[f"{split}_labels"] = labels
    return Contents(**arrays, classes=spec.classes)
