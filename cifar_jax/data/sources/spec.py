"""Types of published datasets: their files, checksums, classes and reader."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_jax.data.sources.contents import Contents
from cifar_jax.errors import UserError


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        url: where it is published, or an https copy with the same checksum.
        size: in bytes.
        sha256: in hex.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file, without folders."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Published:
    """A dataset that its authors publish as files.

    Attributes:
        name: of `--dataset`.
        title: in text, such as "CIFAR-10".
        files: in the order that `read` expects.
        counts: numbers of training and of test images.
        shape: of an image, (H, W, C).
        classes: their names, by label.
        read: reads the files, whose checksums are right. Raises UserError.
        homepage, citation: of the authors.
        folders: folders in the data directory that may have the files, besides itself.
        prepared: directories in which tensorflow-datasets prepares it.
        label: its label's feature in them.
    """

    name: str
    title: str
    files: tuple[File, ...]
    counts: tuple[int, int]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    read: Callable[["Published", Sequence[Path]], Contents]
    homepage: str
    citation: str
    folders: tuple[str, ...] = ()
    prepared: tuple[str, ...] = ()
    label: str = "label"

    @property
    def own(self) -> str:
        """Name of the directory in which this project prepares it."""
        return f"{self.name}_binary"

    @property
    def key(self) -> str:
        """Name of the cache entry: the dataset's name, and a checksum of its files."""
        if len(self.files) == 1:
            return f"{self.name}-{self.files[0].sha256[:16]}"
        sums = "".join(file.sha256 for file in self.files)
        return f"{self.name}-{hashlib.sha256(sums.encode()).hexdigest()[:16]}"


def check_labels(path: Path, labels: np.ndarray, spec: Published) -> None:
    """Check the labels, integers (N,), that a file has.

    Raises:
        UserError: one has no class.
    """
    if labels.max() >= len(spec.classes):
        raise UserError(
            f"{path}: it has the label {labels.max()}; {spec.title} has 0 to "
            f"{len(spec.classes) - 1}"
        )


def damage(path: Path, file: File) -> str | None:
    """Return in a few words how a file differs from the published one, or None.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size != file.size:
        return f"it has {size} bytes, not {file.size}"
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != file.sha256:
        return f"its SHA-256 is {digest[:12]}..., not {file.sha256[:12]}..."
    return None
