"""Published test sets for networks that were trained on CIFAR-10: CIFAR-10-C and CIFAR-10.1.

- CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv 1903.12261): the test images with fifteen kinds of
  corruption. A file of each kind has the 10,000 images at severity 1, then at severity 2, to 5.
- CIFAR-10.1, version 6 (Recht et al. 2018, arXiv 1806.00451): 2,000 new images of the same classes.

The user has the files. They are read without unpickling, and their digests are recorded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from cifar_jax.analysis.common_corruptions.table import NAMES, SEVERITIES
from cifar_jax.analysis.corruptions import chosen, kinds_sentence
from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.numbers import (
    Number,
    means_sentence,
    numbers_table,
    share,
    verdict_sentence,
)
from cifar_jax.analysis.outputs import compute
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.errors import UserError, one_line
from cifar_jax.inputs import expand_home
from cifar_jax.report.section import Section
from cifar_jax.storage import sha256
from cifar_jax.study.summary import is_cifar10

EACH = 10_000  # images at each severity
SHAPE = 32, 32, 3
LABELS = "labels.npy"
NEW = "cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"
FILES = {name: f"{name.replace(' ', '_')}.npy" for name in NAMES} | {
    "elastic": "elastic_transform.npy",
    "jpeg": "jpeg_compression.npy",
}


class PublishedSets(Struct, frozen=True):
    """Accuracy of one run, as fractions. None: the user did not give this set.

    Attributes:
        corrupted: on CIFAR-10-C, of each kind, in the order of `table.NAMES`, and severity.
        images: number of test images of which CIFAR-10-C was used.
        new: on CIFAR-10.1.
    """

    corrupted: tuple[tuple[float, ...], ...] | None
    images: int
    new: float | None


def read_array(path: Path, shape: Sequence[int], what: str) -> np.ndarray:
    """Map a .npy file of integers into memory.

    Args:
        path: of the file.
        shape: that it must have, without the first axis.
        what: it contains, for the message.

    Raises:
        UserError: it cannot be read, or has another shape or type.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except Exception as error:  # For damaged files NumPy raises many types.
        raise UserError(f"{path}: is not a NumPy file ({one_line(error)})") from None
    wanted = "uint8" if shape else "integers"
    fits = array.dtype == np.uint8 if shape else array.dtype.kind in "iu"
    if not fits or array.ndim < 1 or array.shape[1:] != tuple(shape):
        raise UserError(
            f"{path}: is {array.dtype} {array.shape}; {what} are {wanted} of shape "
            f"(N{''.join(f', {n}' for n in shape)}{'' if shape else ','})"
        )
    return array


def read_labels(path: Path, count: int) -> np.ndarray:
    """Read labels of CIFAR-10, int64 (count,).

    Raises:
        UserError: they cannot be used.
    """
    labels = np.asarray(read_array(path, (), "labels"), np.int64)
    if len(labels) != count or labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{path}: must have {count:,} labels from 0 to 9")
    return labels


def read_corrupted(directory: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the images of each kind, uint8 (50000, 32, 32, 3), mapped, and labels (10000,).

    Raises:
        UserError: a file cannot be used.
    """
    labels = read_labels(directory / LABELS, EACH * len(SEVERITIES)).reshape(len(SEVERITIES), EACH)
    if (labels != labels[0]).any():
        raise UserError(f"{directory / LABELS}: must have the same labels at each severity")
    found = {}
    for name in NAMES:
        images = read_array(directory / FILES[name], SHAPE, "images")
        if len(images) != labels.size:
            raise UserError(f"{directory / FILES[name]}: must have {labels.size:,} images")
        found[name] = images
    return found, labels[0]


def read_new(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of CIFAR-10.1, uint8 (N, 32, 32, 3), mapped, and labels, (N,).

    Raises:
        UserError: a file cannot be used.
    """
    images = read_array(directory / NEW[0], SHAPE, "images")
    if not len(images):
        raise UserError(f"{directory / NEW[0]}: has no image")
    return images, read_labels(directory / NEW[1], len(images))


def _digests(directory: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of files, in hex.

    Raises:
        UserError: one cannot be read.
    """
    try:
        return {name: sha256(directory / name) for name in files}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _given(shared: Shared) -> tuple[Path | None, Path | None]:
    request = shared.request
    flags = ("--cifar10-c", request.cifar10_c), ("--cifar10-1", request.cifar10_1)
    first, second = (expand_home(path, flag) if path else None for flag, path in flags)
    return first, second


def options(shared: Shared) -> dict[str, Any]:
    """Check the user's files. Return their digests, and the number of images.

    Raises:
        UserError: a file cannot be used, none is given, or the study is not of CIFAR-10.
    """
    corrupted, new = _given(shared)
    if corrupted is None and new is None:
        raise UserError("--only published_sets: needs --cifar10-c DIR or --cifar10-1 DIR")
    if not is_cifar10(shared.study):
        flag = "--cifar10-c" if corrupted else "--cifar10-1"
        raise UserError(
            f"{flag}: {shared.study.dataset.name} is not CIFAR-10 with its ten classes in order"
        )
    found: dict[str, Any] = {"images": shared.request.corruption_images}
    if corrupted is not None:
        read_corrupted(corrupted)
        found["cifar10_c"] = _digests(corrupted, [LABELS, *(FILES[name] for name in NAMES)])
    if new is not None:
        read_new(new)
        found["cifar10_1"] = _digests(new, NEW)
    return found


def measure(trained: TrainedRun) -> PublishedSets:
    """Evaluate the run on the sets that the user gave."""
    shared = trained.shared
    if shared.images.test_images.shape[1:] != SHAPE:
        raise Lacking("its images are not 32x32 pixels large, as the published ones are")
    program = shared.program(trained.run, trained.state, False)

    def accuracy(pixels: np.ndarray, labels: np.ndarray) -> float:
        predicted = compute(program, trained.state, pixels).logits.argmax(axis=1)
        return float(np.mean(predicted == labels))

    corrupted, new = _given(shared)
    table, most = [], shared.request.corruption_images
    if corrupted is not None:
        kinds, labels = read_corrupted(corrupted)
        rows = chosen(EACH, most)
        for number, images in enumerate(kinds.values(), 1):
            parts = [images[EACH * (severity - 1) + rows] for severity in SEVERITIES]
            table.append(tuple(accuracy(part, labels[rows]) for part in parts))
            trained.progress(number / len(kinds))
    return PublishedSets(
        corrupted=tuple(table) or None,
        images=min(EACH, most),
        new=None if new is None else accuracy(*read_new(new)),
    )


NEW_SET = share("cifar10_1", "accuracy on CIFAR-10.1")
MEAN = share("cifar10_c", "mean accuracy on CIFAR-10-C")
OF_KINDS = [
    share(f"cifar10_c_{name.replace(' ', '_')}", name, "kinds of CIFAR-10-C") for name in NAMES
]


def numbers(record: PublishedSets) -> list[Number]:
    """Return accuracies on CIFAR-10.1, and on CIFAR-10-C: mean, and of each kind."""
    rows = record.corrupted or ((None,),) * len(NAMES)
    known = record.corrupted is not None
    means = [float(np.mean(row)) if known else None for row in rows]  # type: ignore[arg-type]
    mean = float(np.mean(record.corrupted)) if known else None  # type: ignore[arg-type]
    kinds = [Number(*pair) for pair in zip(OF_KINDS, means, strict=True)]
    return [Number(NEW_SET, record.new), Number(MEAN, mean), *kinds]


def section(findings: Findings[PublishedSets]) -> Section:
    """Return the section: accuracy on each set, and its difference between the arms."""
    study, record = findings.study, findings.runs[0].record
    new, mean, *kinds = findings.compared
    sentences: list[str] = []
    shown = []
    for row in (new, mean):
        if row.per_arm:
            shown.append(row)
            sentences.append(means_sentence(study, row))
            sentences.append(verdict_sentence(study, row, "is less accurate", "is more accurate"))
    if mean.per_arm:
        shown += kinds
        sentences.append(f"Of CIFAR-10-C, {record.images:,} of its 10,000 test images are used.")
        if mean.paired:
            sentences.append(kinds_sentence(study, kinds))
    table = numbers_table(study, shown, "Accuracy on published test sets")
    return Section(PART.title, tuple(filter(None, sentences)), (), (table,))


PART = Part(
    name="published_sets",
    title="Published test sets",
    record=PublishedSets,
    measure=measure,
    numbers=numbers,
    section=section,
    options=options,
)
