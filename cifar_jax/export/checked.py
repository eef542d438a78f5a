"""Export a network, and check the file with its own reader before it is written."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.export.formats import FORMATS
from cifar_jax.export.plain import BATCH, PlainNetwork
from cifar_jax.names import EXPORTS
from cifar_jax.storage import write_bytes
from cifar_jax.study.network import in_batches

CHECKED = 1_000  # images
# Relative to the largest logit, or to 1 if that is larger. Another order of sums in float32 changes
# a logit by less than a hundredth of this.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """How far a file's logits agree with the network's.

    Attributes:
        reader: the program that read the file, with its version.
        images: number of images.
        difference: largest difference of two logits.
        largest: largest absolute logit of the network.
        same: number of images with the same class.
    """

    reader: str
    images: int
    difference: float
    largest: float
    same: int

    @property
    def holds(self) -> bool:
        """Whether the difference is rounding. Then a class differs only between equal logits."""
        return self.difference <= TOLERANCE * max(1.0, self.largest)

    def __str__(self) -> str:
        return (
            f"largest difference of a logit {self.difference:.1e}, largest logit "
            f"{self.largest:.3g}, same class for {self.same:,} of {self.images:,} images "
            f"(read by {self.reader})"
        )


def compare_logits(reader: str, found: np.ndarray, expected: np.ndarray) -> Agreement:
    """Compare a file's logits with the network's, both float32 (N, classes)."""
    if found.shape != expected.shape:
        raise UserError(f"logits of shape {found.shape} instead of {expected.shape}")
    same = int(np.sum(found.argmax(1) == expected.argmax(1)))
    difference = float(np.abs(found - expected).max())
    return Agreement(reader, len(found), difference, float(np.abs(expected).max()), same)


def spread(images: np.ndarray) -> np.ndarray:
    """Return at most `CHECKED` images at equal distances: test sets can be sorted by class."""
    return images[np.unique(np.linspace(0, len(images) - 1, CHECKED).astype(int))]


@dataclass(frozen=True)
class Exported:
    """Written files, the main one first, and how far its logits agree with the network's."""

    files: tuple[Path, ...]
    agreement: Agreement


def check_output(path: Path, kind: str, what: str) -> None:
    """Check the path of an exported file.

    Args:
        path: of the file.
        kind: a format of `names.EXPORTS`.
        what: begins the message.

    Raises:
        UserError: its name does not end as the format's, or its directory is missing.
    """
    if not path.name.endswith(EXPORTS[kind]) or path.name == EXPORTS[kind]:
        raise UserError(
            f"{what} {path}: the name of a file of format {kind} ends in {EXPORTS[kind]}"
        )
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"{what} {path}: {reason}")


def export_to(path: Path, kind: str, network: PlainNetwork, images: np.ndarray) -> Exported:
    """Write a network's files, if their logits agree with the network's.

    Args:
        path: of the main file. The others go beside it.
        kind: name of the format, of `FORMATS`.
        network: what to export.
        images: to check with, uint8 (N, H, W, C); at most `CHECKED` of them are used.

    Raises:
        UserError: the format cannot have this network, a package is missing, or the logits do not
            agree. Then nothing is written.
    """
    chosen, images = FORMATS[kind], spread(np.asarray(images))
    files = chosen.write(network, path.name)
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        reader = chosen.load(Path(directory) / path.name, network)
        found = in_batches(reader.logits, network.given(images), BATCH)
    agreement = compare_logits(reader.name, found, network.logits(images))
    if not agreement.holds:
        raise UserError(f"{kind}: nothing is written, because the file is wrong: {agreement}")
    for name, content in files.items():
        write_bytes(path.parent / name, content)
    return Exported(tuple(path.parent / name for name in files), agreement)
