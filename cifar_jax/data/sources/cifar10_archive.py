"""The archive that CIFAR-10's authors publish: what it must be, and how to read it.

CIFAR-10, binary version (Krizhevsky, 2009): a gzipped tar of six files of 10,000 records; a record
is one byte of label and 3072 bytes of pixels, a 32x32 plane each of red, green and blue, by rows.
"""

import hashlib
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_jax.data.sources.contents import Contents
from cifar_jax.errors import UserError

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


@dataclass(frozen=True)
class Archive:
    """What an archive must be.

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
    """What is wrong with the file, in a few words, or None if it is the archive.

    Raises:
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    if size != archive.size:
        return f"it has {size} bytes, not {archive.size}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        return f"its SHA-256 is {digest[:12]}..., not {archive.sha256[:12]}..."
    return None


def read(path: Path, archive: Archive) -> Contents:
    """Read the images out of the archive, in its authors' order.

    Nothing is extracted to disk: only the six expected members are read, and whatever else the
    archive holds, under whatever path, is passed over.

    Raises:
        UserError: naming the file, if it is cut short or does not hold what it should.
    """
    wanted = archive.batch * _RECORD_BYTES
    found: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                if member.name not in _TRAIN_FILES + _TEST_FILES:
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None or member.size != wanted:
                    raise UserError(f"{path}: {member.name} in it is not a file of {wanted} bytes")
                found[member.name] = np.frombuffer(file.read(wanted), np.uint8)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzipped tar ({error})") from None
    arrays = {}
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
