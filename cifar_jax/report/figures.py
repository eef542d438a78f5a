"""Draw the figures of one run as PNG. Every title names the dataset."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_jax.errors import one_line
from cifar_jax.report.direct_labels import name_lines
from cifar_jax.report.drawing import GREY, PALETTE, render
from cifar_jax.report.labels import font_warning, wrapped
from cifar_jax.report.matrix import draw_matrix, write_cells
from cifar_jax.runner.results import EpochRow, Finished
from cifar_jax.storage import write_bytes

MOST_COUNTED = 20  # classes; numbers in more cells would be too small
WIDEST = 10  # inches


def reason(error: Exception) -> str:
    """Return in a few words why a figure could not be drawn."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return getattr(error, "strerror", None) or one_line(error)


def draw_run(workdir: Path, results: Finished, confusion: np.ndarray, title: str) -> list[str]:
    """Draw `training_curves.png` and `confusion_matrix.png` of a finished run.

    Args:
        workdir: the run's directory, with its results.
        results: of the run.
        confusion: integers (classes, classes), rows are true classes.
        title: of the figures; names the run.

    Returns:
        Warnings of figures that could not be drawn, and of characters that no font has.
    """
    classes = results.dataset.classes
    of_matrix = f"{title}: test accuracy {100 * results.test_accuracy:.2f} %"
    figures: dict[str, Callable[[], Figure]] = {
        "training_curves.png": lambda: training_curves(results.history, title),
        "confusion_matrix.png": lambda: confusion_matrix(confusion, classes, of_matrix),
    }
    problems = [font_warning([title, *classes])]
    for name, build in figures.items():
        try:
            write_bytes(workdir / name, render(build).png())
        except Exception as error:
            problems.append(
                f"{workdir / name}: could not be drawn ({reason(error)}); the results are complete"
            )
    return [f"warning: {problem}" for problem in problems if problem]


def rate_drops(history: Sequence[EpochRow]) -> list[float]:
    """Return the epochs, less a half, before which the learning rate drops.

    Empty for a rate that changes every epoch.
    """
    pairs = list(itertools.pairwise(history))
    if len(pairs) > 1 and all(a.learning_rate != b.learning_rate for a, b in pairs):
        return []
    return [b.epoch - 0.5 for a, b in pairs if b.learning_rate < a.learning_rate * (1 - 1e-6)]


def mark_drops(axes: Axes, drops: Sequence[float]) -> None:
    """Draw dashed lines where the learning rate drops, and say so above the first."""
    for drop in drops:
        axes.axvline(drop, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
    if drops:
        axes.annotate(
            "learning rate drops",
            (drops[0], 1),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            color=GREY,
            fontsize=8.5,
        )


def training_curves(history: Sequence[EpochRow], title: str) -> Figure:
    """Draw loss and accuracy of training and validation over the epochs.

    Args:
        history: one row an epoch. Dashed lines mark the epochs before which the rate drops.
        title: of the figure.
    """
    figure = Figure(figsize=(7.8, 3.6))
    epochs = [row.epoch for row in history]
    marker = "o" if len(epochs) < 3 else None
    for axes, quantity, scale in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True
    ):
        for split, colour in zip(("train", "val"), PALETTE, strict=False):
            values = [scale * getattr(row, f"{split}_{quantity}") for row in history]
            label = "training" if split == "train" else "validation"
            axes.plot(epochs, values, color=colour, label=label, marker=marker)
        mark_drops(axes, rate_drops(history))
        axes.set_xlabel("epoch")
        axes.set_ylabel("cross-entropy [nats]" if quantity == "loss" else "accuracy [%]")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        name_lines(axes)
    figure.suptitle(wrapped(title, 90))
    return figure


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix of at most 11 x 10 inches. Colours are shares of the true class.

    Up to 20 classes have counts in the cells, up to 40 have names, more than 250 share cells.

    Args:
        confusion: integers (classes, classes), rows are true classes.
        classes: their names.
        title: of the figure.
    """
    n = len(classes)
    side = min(max(5.0, 0.55 * n + 2.0), WIDEST)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    share = 100 * confusion / totals
    norm, label = Normalize(0, 100), "share of the true class [%]"
    image = draw_matrix(axes, share, classes, side - 2, label, cmap="Blues", norm=norm)
    if n <= MOST_COUNTED:
        write_cells(axes, image, share, lambda row, column: str(confusion[row, column]), 8)
    figure.suptitle(wrapped(title, int(10 * side)))
    return figure
