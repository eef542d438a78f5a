"""Duplicates: do test images repeat training images, and does that raise the accuracy?"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from msgspec import Struct

from cifar_jax.analysis.near import NEAR, Nearest, find_nearest
from cifar_jax.analysis.numbers import (
    Number,
    Quantity,
    compare_sentences,
    means_sentence,
    numbers_table,
    share,
)
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import counted
from cifar_jax.report.drawing import PIXELS, new_figure
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.section import Section
from cifar_jax.report.study_figures import StudyFigure, missing_images
from cifar_jax.report.text import percent
from cifar_jax.runner.results import Count, Line, Share

MOST_PICTURES = 16
_IN_A_LINE = 4
_TITLE = "Test images that nearly repeat training images"
_KEPT = "near duplicates"


class Duplicates(Struct, frozen=True):
    """Accuracy of one run with and without the test images that repeat training images.

    Attributes:
        all: on all test images.
        unique: without near duplicates; None if every image has one.
        repeated: on the near duplicates; None without one.
    """

    all: Share
    unique: Share | None
    repeated: Share | None


class Pair(Struct, frozen=True):
    """A test image and its near duplicate.

    Attributes:
        row: of the test image.
        train_row: of the training image, in the whole training set.
        label, train_label: their classes.
    """

    row: Count
    train_row: Count
    label: Line
    train_label: Line


class Counts(Struct, frozen=True):
    """Near duplicates of training images.

    Attributes:
        images: that were compared.
        near: that have a near duplicate, exact ones included.
        exact: with equal pixels.
        other_label: whose near duplicate has another label.
    """

    images: Count
    near: Count
    exact: Count
    other_label: Count


class Repeated(Struct, frozen=True):
    """Repeats in the images of a study.

    Attributes:
        test, validation: against the training images.
        pairs: of test images, the most similar first.
    """

    test: Counts
    validation: Counts
    pairs: tuple[Pair, ...]


def _nearest(trained: TrainedRun) -> Nearest:
    """Return the nearest training image of each test image. All runs of a study share it."""
    shared = trained.shared
    if _KEPT not in shared.kept:
        train, _ = trained.train_images
        shared.kept[_KEPT] = find_nearest(shared.images.test_images, train, trained.progress)
    found: Nearest = shared.kept[_KEPT]
    return found


def measure(trained: TrainedRun) -> Duplicates:
    """Measure the accuracy of one run with and without near duplicates."""
    near, right = _nearest(trained).near, trained.run.correct
    return Duplicates(
        all=float(right.mean()),
        unique=float(right[~near].mean()) if (~near).any() else None,
        repeated=float(right[near].mean()) if near.any() else None,
    )


def numbers(record: Duplicates) -> list[Number]:
    """Return the accuracies, and how much the near duplicates raise it."""
    raised = Quantity("raised", "accuracy gained by duplicates", 100, 3, "points", "", -1.0, 1.0)
    gain = None if record.unique is None else record.all - record.unique
    return [
        Number(share("all", "accuracy, all test images"), record.all),
        Number(share("unique", "accuracy, without near duplicates"), record.unique),
        Number(share("repeated", "accuracy, near duplicates"), record.repeated),
        Number(raised, gain),
    ]


def _counts(nearest: Nearest, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Counts:
    """Count near duplicates. `pairs` are images and labels: compared ones, and training ones."""
    (images, labels), (train, train_labels) = pairs
    rows = np.flatnonzero(nearest.near)
    others = nearest.row[rows]
    exact = sum(np.array_equal(images[a], train[b]) for a, b in zip(rows, others, strict=True))
    different = int((labels[rows] != train_labels[others]).sum())
    return Counts(len(images), len(rows), int(exact), different)


def together(shared: Shared) -> Repeated:
    """Count the near duplicates of training images among test and validation images."""
    run = next(row[0] for row in shared.study.runs.values() if row)
    trained = TrainedRun(shared, run)
    images, names = shared.images, shared.images.classes
    train, val = trained.train_images, trained.val_images
    nearest = _nearest(trained)
    test = images.test_images, np.asarray(images.test_labels)
    rows = np.argsort(-nearest.similarity, kind="stable")[:MOST_PICTURES]
    train_rows = trained.train_rows
    pairs = [
        Pair(
            int(row),
            int(train_rows[nearest.row[row]]),
            names[test[1][row]],
            names[train[1][nearest.row[row]]],
        )
        for row in rows
        if nearest.near[row]
    ]
    of_val = find_nearest(val[0], train[0], trained.progress)
    return Repeated(_counts(nearest, (test, train)), _counts(of_val, (val, train)), tuple(pairs))


def options(shared: Shared) -> dict[str, Any]:
    """Return the correlation from which images are near duplicates."""
    return {"correlation": NEAR}


def draw_pairs(pairs: Sequence[Pair], images: Dataset, title: str) -> Figure:
    """Draw pairs side by side: the test image, then the training image."""
    lines = -(-len(pairs) // _IN_A_LINE)
    figure = new_figure(0.5 + 0.85 * lines, title)
    grid = figure.subplots(lines, _IN_A_LINE, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, pair in zip(grid.flat, pairs, strict=False):
        both = images.test_images[pair.row], images.train_images[pair.train_row]
        gap = np.full((both[0].shape[0], 2, 3), 255, np.uint8)
        axes.imshow(np.concatenate([both[0], gap, both[1]], axis=1), **PIXELS)
        same = pair.label == pair.train_label
        words = pair.label if same else f"{pair.label}, {pair.train_label}"
        axes.set_title(short_name(words, 22), loc="center", fontsize=8)
    return figure


def _sentence(what: str, found: Counts) -> str:
    other = f", {found.other_label:,} under another label" if found.other_label else ""
    return (
        f"{found.near:,} of {counted(found.images, f'{what} image')} "
        f"({percent(found.near / found.images if found.images else 0.0)}) nearly repeat a training "
        f"image, {found.exact:,} exactly{other}."
    )


def section(findings: Findings[Duplicates]) -> Section:
    """Return the section: counts, what they change, and pictures."""
    study, found = findings.study, findings.together
    rows = {row.quantity.key: row for row in findings.compared}
    sentences = [means_sentence(study, rows["raised"])]
    figures = []
    if found is not None:
        sentences = [_sentence("test", found.test), _sentence("validation", found.validation)]
        if found.test.near:
            words = "gains less from duplicates", "gains more from duplicates"
            sentences.append(compare_sentences(study, rows["raised"], *words))
    if found is not None and found.pairs:
        where = dataset_name(study)
        images, title = findings.images, f"{_TITLE}: {where}"
        reason = missing_images(study, images)
        build = partial(draw_pairs, found.pairs, images, title) if images and not reason else None
        caption = (
            f"{where}: {len(found.pairs)} of {found.test.near:,} pairs, the most similar first. "
            "Left the test image, right the training image. Two names are different labels."
        )
        figures.append(StudyFigure("27_duplicates", _TITLE, caption, build, reason))
    note = (
        f"Near duplicates: the correlation of 8 x 8 means of each channel is at least {NEAR}, also "
        "of the mirrored image."
    )
    table = numbers_table(study, findings.compared, "Accuracy and near duplicates", note)
    return Section(PART.title, tuple(sentences), tuple(figures), (table,))


PART = Part(
    name="duplicates",
    title="Duplicates between test and training",
    record=Duplicates,
    measure=measure,
    numbers=numbers,
    section=section,
    options=options,
    together=together,
    together_record=Repeated,
)
