"""Draw a study's figures of classes, readable for any number of classes.

Up to 40 classes are named. Of more, figures show sorted values, the largest differences, or class
numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Normalize, PowerNorm
from matplotlib.figure import Figure

from cifar_jax.data.dataset import Dataset
from cifar_jax.data.splits import train_val_split
from cifar_jax.report.drawing import PALETTE, arm_style, drawn_arms, legend_below, new_figure
from cifar_jax.report.labels import MOST_NAMED, class_names, name_classes
from cifar_jax.report.matrix import draw_matrix, write_cells
from cifar_jax.report.naming import paired_runs
from cifar_jax.study.collect import Run, Study

MOST_WRITTEN = 12  # classes; numbers in more cells would be too small
_AXIS = 4.3  # inches, the length of a horizontal axis


def confusion_shares(runs: Sequence[Run]) -> np.ndarray:
    """Return shares of each true class (rows), mean over the seeds. NaN for absent classes."""
    total = np.zeros(())
    for run in runs:  # One at a time: a thousand classes are 8 MB a run.
        counts = run.confusion.astype(float)
        images = counts.sum(axis=1, keepdims=True)
        absent = np.full_like(counts, np.nan)
        total = total + np.divide(counts, images, out=absent, where=images > 0)
    return total / len(runs)


def sorted_note(classes: Sequence[str]) -> str:
    """Return a caption's sentence for classes too many to name, or ""."""
    if len(classes) <= MOST_NAMED:
        return ""
    return f" The {len(classes):,} classes are too many to name, so they are sorted by value."


def counts_caption(classes: Sequence[str]) -> str:
    """Return the caption of `class_counts`."""
    return f"images of each class in the training, validation and test set.{sorted_note(classes)}"


def _bars_of_classes(axes: Axes, classes: Sequence[str]) -> None:
    name_classes(axes, "x", class_names(classes), _AXIS)
    axes.grid(axis="x", visible=False)


def class_counts(images: Dataset, data: dict[str, Any], title: str) -> Figure:
    """Draw the number of images of each class in the training, validation and test set.

    More than 40 classes are sorted by value, each set separately.

    Args:
        images: of the dataset.
        data: the config's data table: val_examples, split_seed and optionally train_examples.
        title: of the figure.
    """
    labels = np.asarray(images.train_labels)
    train, val = train_val_split(
        len(labels), data["val_examples"], data["split_seed"], images.n_val > 0
    )
    train = train[: data.get("train_examples")]
    n = len(images.classes)
    sets = (
        ("training", labels[train], ""),
        ("validation", labels[val], "///"),
        ("test", np.asarray(images.test_labels), "..."),
    )
    figure = new_figure(3.4, title)
    axes = figure.subplots()
    for number, (name, which, hatch) in enumerate(sets):
        colour, label = PALETTE[number], f"{name} ({len(which):,})"
        counts = np.bincount(which, minlength=n)
        if n > MOST_NAMED:
            _sorted_classes(axes, counts, colour, label)
            continue
        axes.bar(
            np.arange(n) + 0.27 * (number - 1),
            counts,
            0.27,
            color=colour,
            edgecolor="white",
            linewidth=0.3,
            hatch=hatch,
            label=label,
        )
    if n > MOST_NAMED:
        axes.set_xlabel("classes, from the most images to the fewest")
        axes.set_ylim(bottom=0)
    else:
        _bars_of_classes(axes, images.classes)
    axes.set_ylabel("images")
    legend_below(figure, axes, 3)
    return figure


def _sorted_classes(axes: Axes, values: np.ndarray, colour: str, label: str) -> None:
    """Draw the values of the classes as a line, in descending order."""
    found = np.sort(values[~np.isnan(values)])[::-1]
    axes.plot(np.arange(1, len(found) + 1), found, color=colour, label=label)


def confusions(study: Study, classes: Sequence[str], title: str) -> Figure:
    """Draw the test set's confusion matrix of every arm, in one column."""
    arms = drawn_arms(study)
    figure = new_figure(0.4 + 4.4 * len(arms), title)
    for axes, (name, _, _, runs) in zip(
        figure.subplots(len(arms), 1, squeeze=False).flat, arms, strict=True
    ):
        share = "share of the true class [%]"
        norm = PowerNorm(0.5, 0, 100)  # makes confusions of a few per cent visible
        _matrix(axes, 100 * confusion_shares(runs), classes, share, "Blues", norm)
        if len(arms) > 1:
            axes.set_title(name, loc="center")
    return figure


def _matrix(
    axes: Axes, values: np.ndarray, classes: Sequence[str], label: str, cmap: str, norm: Normalize
) -> None:
    """Draw per cents or points as colours, and for up to 12 classes as numbers."""
    image = draw_matrix(axes, values, classes, 3.1, label, cmap=cmap, norm=norm)
    if len(classes) > MOST_WRITTEN:
        return
    form = "+.1f" if isinstance(norm, CenteredNorm) else ".1f"

    def text(row: int, column: int) -> str:
        words = format(values[row, column], form)
        return "0" if words.strip("+-") == "0.0" else words

    write_cells(axes, image, values, text, 6.5)


def confusion_difference(study: Study, classes: Sequence[str], title: str) -> Figure:
    """Draw the second arm's confusion matrix minus the first's, over their common seeds."""
    first, second = zip(*paired_runs(study), strict=True)
    difference = 100 * (confusion_shares(second) - confusion_shares(first))
    limit = max(float(np.nanmax(np.abs(difference))), 1e-9)
    figure = new_figure(4.8, title)
    label = "difference [points of the true class]"
    norm = CenteredNorm(0, limit)
    _matrix(figure.subplots(), difference, classes, label, "PuOr_r", norm)
    return figure


def per_class(study: Study, per_arm: dict[str, Any], classes: Sequence[str], title: str) -> Figure:
    """Draw the test accuracy of each class for every arm.

    More than 40 classes are sorted by accuracy, each arm separately.

    Args:
        study: its arms.
        per_arm: of the summary.
        classes: their names.
        title: of the figure.
    """
    arms = [arm for arm in study.arms if study.runs[arm]]
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        rows = [per_arm[arm].get(f"class:{name}") for name in classes]
        mean = np.array([100 * row["mean"] if row else np.nan for row in rows])
        colour, _ = arm_style(study.arms, arm)
        if len(classes) > MOST_NAMED:
            _sorted_classes(axes, mean, colour, study.label(arm))
            continue
        x = np.arange(len(classes)) + width * (number - (len(arms) - 1) / 2)
        label = study.label(arm)
        axes.bar(x, mean, width, color=colour, edgecolor="white", linewidth=0.4, label=label)
        ends = [(at, *row["ci_t"]) for at, row in zip(x, rows, strict=True) if row and row["ci_t"]]
        for at, low, high in ends:
            axes.plot([at, at], [100 * low, 100 * high], color="black", linewidth=1)
    if len(classes) > MOST_NAMED:
        axes.set_xlabel("classes, from the best to the worst of each arm")
    else:
        _bars_of_classes(axes, classes)
    axes.set_ylabel("test accuracy [%]")
    axes.set_ylim(0, 101.5)
    legend_below(figure, axes, min(len(arms), 3))
    return figure
