"""Corruptions: how accurate is a network on noisy, blurred, or otherwise spoilt test images?

The images are made by `common_corruptions`: fifteen kinds at five severities. They are ours, after
Hendrycks & Dietterich 2019, arXiv 1903.12261, and not their data set CIFAR-10-C. For that one see
`published_sets`. The mean corruption accuracy is the mean over all kinds and severities. The
paper's mean corruption error divides by the errors of another network, AlexNet. We compare the
arms.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from msgspec import Struct

from cifar_jax.analysis.common_corruptions.table import (
    DESIGNED_FOR,
    KINDS,
    NAME,
    NAMES,
    SEED,
    SEVERITIES,
    check_images,
    corrupt,
)
from cifar_jax.analysis.corruptions_plots import corruption_figures
from cifar_jax.analysis.numbers import (
    Compared,
    Number,
    Quantity,
    means_sentence,
    numbers_table,
    share,
    verdict_sentence,
)
from cifar_jax.analysis.outputs import compute
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.errors import listed
from cifar_jax.report.model_card import CORRUPTIONS
from cifar_jax.report.section import Section
from cifar_jax.report.tables import Table
from cifar_jax.report.text import percent
from cifar_jax.study.collect import Study
from cifar_jax.study.statistics import ALPHA

KEPT = 1 << 30  # bytes of corrupted images in memory; more are made again for each run


class Corruptions(Struct, frozen=True):
    """Accuracy of one run, as fractions.

    Attributes:
        images: number of test images.
        clean: without corruption.
        accuracy: of each kind, in the order of `table.NAMES`, and severity, weakest first.
        sha256: of all corrupted images, in hex. Other versions of NumPy, scipy or Pillow could
            make other images.
    """

    images: int
    clean: float
    accuracy: tuple[tuple[float, ...], ...]
    sha256: str

    @property
    def mean(self) -> float:
        """Mean corruption accuracy."""
        return float(np.mean(self.accuracy))


def chosen(images: int, most: int) -> np.ndarray:
    """Return the indices of up to `most` test images: the first of a fixed permutation."""
    return np.random.default_rng(SEED).permutation(images)[:most]


class Corrupted:
    """The corrupted test images, made once for all runs, or again where they take over 1 GiB."""

    def __init__(self, images: np.ndarray, indices: np.ndarray) -> None:
        self._images, self._indices = images[indices], indices
        self._keep = len(KINDS) * len(SEVERITIES) * self._images.nbytes <= KEPT
        self._made: dict[int, np.ndarray] = {}
        self._sha256 = hashlib.sha256()
        self._hashed = 0

    def get(self, number: int) -> np.ndarray:
        """Return the images of `KINDS[number]` at all S severities, uint8 (S * N, H, W, 3)."""
        if number in self._made:
            return self._made[number]
        indices = cast(Sequence[int], self._indices)
        sets = [corrupt(self._images, KINDS[number], s, indices) for s in SEVERITIES]
        made = np.concatenate(sets)
        if number == self._hashed:
            self._sha256.update(made.data)
            self._hashed += 1
        if self._keep:
            self._made[number] = made
        return made

    @property
    def sha256(self) -> str:
        """Digest of all images, after each was made, in hex."""
        return self._sha256.hexdigest()


def _corrupted(shared: Shared, indices: np.ndarray) -> Corrupted:
    """Return the corrupted images, which all runs share."""
    key = "corrupted images"
    if key not in shared.kept:
        shared.kept[key] = Corrupted(shared.images.test_images, indices)
    found: Corrupted = shared.kept[key]
    return found


def measure(trained: TrainedRun) -> Corruptions:
    """Evaluate the run on each set of corrupted images."""
    shared = trained.shared
    images = shared.images
    check_images(images.test_images.shape[1:], images.name)
    indices = chosen(len(images.test_labels), shared.request.corruption_images)
    labels = images.test_labels[indices]
    program = shared.program(trained.run, trained.state, False)

    def accuracy(pixels: np.ndarray) -> np.ndarray:
        """Return the accuracy of each severity, float64 (S,), of uint8 (S * N, H, W, 3)."""
        predicted = compute(program, trained.state, pixels).logits.argmax(axis=1)
        right: np.ndarray = np.mean(predicted.reshape(-1, len(labels)) == labels, axis=1)
        return right

    corrupted, found = _corrupted(shared, indices), []
    for number in range(len(KINDS)):
        found.append(tuple(accuracy(corrupted.get(number)).tolist()))
        trained.progress((number + 1) / len(KINDS))
    return Corruptions(
        images=len(indices),
        clean=float(accuracy(images.test_images[indices])[0]),
        accuracy=tuple(found),
        sha256=corrupted.sha256,
    )


def options(shared: Shared) -> dict[str, Any]:
    """Return the number of test images that the user asks for, and the seed."""
    return {"images": shared.request.corruption_images, "seed": SEED}


CLEAN = share("clean", "accuracy without corruption")
MEAN = share("mean_corruption", "mean corruption accuracy")
LOST = Quantity(
    "lost", "accuracy lost to corruption", 100.0, 2, "points", "", -1.0, 1.0
)  # clean minus mean
OF_KINDS = [share(name.replace(" ", "_"), name, "kinds of corruption") for name in NAMES]


def numbers(record: Corruptions) -> list[Number]:
    """Return accuracies: without corruption, mean over all, their difference, of each kind."""
    kinds = zip(OF_KINDS, record.accuracy, strict=True)
    return [
        Number(CLEAN, record.clean),
        Number(MEAN, record.mean),
        Number(LOST, record.clean - record.mean),
        *(Number(quantity, float(np.mean(row))) for quantity, row in kinds),
    ]


def kinds_sentence(study: Study, rows: Sequence[Compared]) -> str:
    """Say for which kinds an arm is surely better or worse, after Holm's adjustment."""
    words = []
    for arm in dict.fromkeys(arm for row in rows for arm in row.paired):
        better: list[str] = []
        worse: list[str] = []
        open_ = 0
        for row in rows:
            found = row.paired[arm]
            p, mean = found["p_t_holm"], found["mean_difference"]
            if p is None or p >= ALPHA:
                open_ += 1
            else:
                (better if mean > 0 else worse).append(row.quantity.label)
        sides = [("more", better), ("less", worse)]
        sure = [f"{side} accurate for {listed(kinds)}" for side, kinds in sides if kinds]
        if open_:
            sure.append(f"undecided for {open_} of the {len(rows)} kinds")
        control = study.label(rows[0].control)
        words.append(
            f"Kind by kind, with Holm's adjustment, {study.label(arm)} compared with {control} is "
            f"{'; '.join(sure)}."
        )
    return " ".join(words)


def severities_table(findings: Findings[Corruptions]) -> Table:
    """Return each arm's mean accuracy for each kind and severity."""
    study = findings.study
    rows = []
    for arm in findings.arms:
        mean = np.mean([of.accuracy for of in findings.of(arm)], axis=0)
        head = (study.label(arm),) if len(findings.arms) > 1 else ()
        rows += [
            (name, *head, *(percent(value) for value in row))
            for name, row in zip(NAMES, mean, strict=True)
        ]
    arm_head = ("arm",) if len(findings.arms) > 1 else ()
    return Table(
        "Accuracy by kind and severity",
        "Means over the seeds. Severity 1 is the weakest.",
        ("", *arm_head, *(f"severity {severity}" for severity in SEVERITIES)),
        rows,
    )


def source_sentence(findings: Findings[Corruptions]) -> str:
    """Say which images these are."""
    record = findings.runs[0].record
    text = (
        f"The images are {NAME}: {len(KINDS)} kinds at {len(SEVERITIES)} severities of "
        f"{record.images:,} test images, chosen at random, the same for every run. They are not "
        "the data set CIFAR-10-C."
    )
    images = findings.images
    if images is not None and images.test_images.shape[1:3] != (DESIGNED_FOR, DESIGNED_FOR):
        height, width = images.test_images.shape[1:3]
        text += (
            f" The severities were chosen for {DESIGNED_FOR}x{DESIGNED_FOR} pixels; these images "
            f"have {height}x{width}."
        )
    return text


def section(findings: Findings[Corruptions]) -> Section:
    """Return the section: which arm is more robust, by kind and severity."""
    study = findings.study
    clean, mean, lost, *kinds = findings.compared
    sentences = [
        source_sentence(findings),
        means_sentence(study, mean),
        verdict_sentence(
            study,
            mean,
            "is less accurate on corrupted images",
            "is more accurate on corrupted images",
        ),
        means_sentence(study, lost),
        verdict_sentence(study, lost, "loses less accuracy", "loses more accuracy"),
        kinds_sentence(study, kinds) if mean.paired else "",
    ]
    return Section(
        PART.title,
        tuple(sentence for sentence in sentences if sentence),
        tuple(corruption_figures(findings, kinds)),
        (
            numbers_table(study, [clean, mean, lost, *kinds], "Accuracy on corrupted images"),
            severities_table(findings),
        ),
    )


def card(findings: Findings[Corruptions], arm: str) -> list[str]:
    """Return what the model card says: mean, and the worst kind."""
    mean = np.mean([of.accuracy for of in findings.of(arm)], axis=(0, 2))
    worst = int(mean.argmin())
    return [
        f"Mean accuracy on {NAME}: {percent(float(mean.mean()))}; lowest for {NAMES[worst]}: "
        f"{percent(float(mean[worst]))}."
    ]


PART = Part(
    name="corruptions",
    title="Corrupted images",
    record=Corruptions,
    measure=measure,
    numbers=numbers,
    section=section,
    options=options,
    card=card,
    covers=CORRUPTIONS,
)
