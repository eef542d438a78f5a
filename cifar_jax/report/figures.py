"""Figures of one run, as PNG. Every title names the dataset."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_jax.report.files import write_atomically

# Class names are text, not TeX: they may hold a dollar sign.
_plain_text = partial(matplotlib.rc_context, {"text.parse_math": False, "text.usetex": False})

TRAIN, VALIDATION = "tab:blue", "tab:orange"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with _plain_text():
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))


def rate_drops(history: Sequence[dict[str, Any]]) -> list[float]:
    """Epochs, less a half, before which the learning rate drops; none if it changes with each."""
    pairs = list(itertools.pairwise(history))
    if len(pairs) > 1 and all(a["learning_rate"] != b["learning_rate"] for a, b in pairs):
        return []
    return [
        b["epoch"] - 0.5 for a, b in pairs if b["learning_rate"] < a["learning_rate"] * (1 - 1e-6)
    ]


@_plain_text()
def training_curves(history: Sequence[dict[str, Any]], title: str) -> Figure:
    """Loss and accuracy of training and validation over the epochs.

    Args:
        history: rows with epoch, train_loss, train_accuracy, val_loss, val_accuracy and
            learning_rate. Dashed lines mark the epochs before which the rate drops.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 3 else None
    for axes, quantity, scale in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True
    ):
        for split, colour in (("train", TRAIN), ("val", VALIDATION)):
            values = [scale * row[f"{split}_{quantity}"] for row in history]
            label = "training (dropout and augmentation on)" if split == "train" else "validation"
            axes.plot(epochs, values, color=colour, label=label, marker=marker)
        for number, drop in enumerate(rate_drops(history)):
            once = "learning rate drops" if number == 0 else None
            axes.axvline(drop, color="grey", linestyle="--", linewidth=1, label=once)
        axes.set_xlabel("epoch")
        axes.set_ylabel("cross-entropy [nats]" if quantity == "loss" else "accuracy [%]")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    return figure


@_plain_text()
def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix, counts as text, colours as share of the true class.

    Args:
        confusion: integers (classes, classes), rows are true classes.
    """
    n = len(classes)
    side = max(5.0, 0.55 * n + 2.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    share = 100 * confusion / totals
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="share of the true class [%]", shrink=0.8)
    axes.set_xticks(range(n), classes, rotation=45, ha="right")
    axes.set_yticks(range(n), classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if n <= 20:
        for (row, column), count in np.ndenumerate(confusion):
            colour = "white" if share[row, column] > 50 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(title)
    return figure
