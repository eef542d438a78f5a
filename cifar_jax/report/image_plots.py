"""Draw the figures with images of the dataset."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure
from scipy.special import softmax

from cifar_jax.data.dataset import Dataset
from cifar_jax.report.drawing import PIXELS, arm_style, new_figure
from cifar_jax.report.labels import MOST_NAMED, class_names, short_name
from cifar_jax.report.naming import paired_runs
from cifar_jax.study.collect import Run, Study

MOST_OF_EACH = 9  # images that only one arm gets right
MOST_MISTAKES = 15
LINE_HEIGHT = 1.1  # inches, the height of a line of images
_IN_A_LINE = 3
DARK_ORANGE = "#A13D00"
_WIDTH = 1.9  # of an image with its words, in widths of the image

# Lines of text next to an image: label, value and colour.
Words = list[tuple[str, str, str]]


def samples(images: Dataset, title: str) -> Figure:
    """Draw the first training image of each class, for up to 40 classes."""
    names = class_names(images.classes)[:MOST_NAMED]
    columns = 5
    rows = -(-len(names) // columns)
    figure = new_figure(0.5 + 1.2 * rows, title)
    labels = np.asarray(images.train_labels)
    for label, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        found = np.flatnonzero(labels == label)
        if label < len(names) and len(found):
            axes.imshow(images.train_images[found[0]], **PIXELS)
            axes.set_title(names[label], loc="center", fontsize=9)
    return figure


def samples_caption(classes: Sequence[str]) -> str:
    """Return the caption of `samples`."""
    first = f"the first {MOST_NAMED} of {len(classes):,} classes"
    which = first if len(classes) > MOST_NAMED else "each class"
    return f"the first training image of {which}."


def disagreements(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Find the test images that only one of the two compared arms gets right.

    Returns:
        Rows that only the second arm gets right with the first common seed, and rows that only the
        first does, int64 (N,) each. Rows for which most seeds agree come first.
    """
    right = np.array([[run.correct for run in both] for both in paired_runs(study)])

    def only_right(arm: int) -> np.ndarray:
        """Return the rows that `arm`, 0 or 1, gets right and the other arm wrong."""
        found = right[:, arm] & ~right[:, 1 - arm]  # (seeds, images)
        rows = np.flatnonzero(found[0])
        return rows[np.argsort(-found.sum(axis=0)[rows], kind="stable")]

    return only_right(1), only_right(0)


def _spread(rows: np.ndarray, label: np.ndarray, most: int) -> list[int]:
    """Take up to `most` rows, the first ones, at most three of a class."""
    taken: list[int] = []
    for of_class in (1, 2, 3):
        for row in rows:
            same = sum(label[t] == label[row] for t in taken)
            if row not in taken and same < of_class and len(taken) < most:
                taken.append(int(row))
    return taken


def _lines(count: int) -> int:
    return max(1, -(-count // _IN_A_LINE))


def show_images(
    figure: Figure | SubFigure, images: Sequence[np.ndarray], words: Sequence[Words]
) -> None:
    """Draw images, three in a line, each with its words."""
    grid = [*figure.subplots(_lines(len(images)), _IN_A_LINE, squeeze=False).flat]
    for axes in grid:
        axes.axis("off")
    for axes, image, lines_of_text in zip(grid, images, words, strict=False):
        axes.imshow(image, **PIXELS)
        axes.set_xlim(-0.5, _WIDTH * image.shape[1] - 0.5)  # The words are on the right.
        for number, (label, value, colour) in enumerate(lines_of_text):
            axes.text(
                1.08 / _WIDTH,
                0.97 - 0.33 * number,
                f"{short_name(label)}\n{value}",
                transform=axes.transAxes,
                va="top",
                fontsize=7.5,
                color=colour,
            ).set_in_layout(False)
    if not len(images):
        grid[0].text(0, 0.5, "No such image.", transform=grid[0].transAxes)


def disagreement_images(study: Study, images: Dataset, title: str) -> Figure:
    """Draw nine of the `disagreements` of each arm, with true label and predictions."""
    both = paired_runs(study)[0]
    label, names = both[0].label, class_names(images.classes)
    found = disagreements(study)
    taken = [_spread(rows, label, MOST_OF_EACH) for rows in found]
    heights = [0.25 + LINE_HEIGHT * _lines(len(rows)) for rows in taken]
    figure = new_figure(0.5 + sum(heights), title)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, right, wrong, rows, all_rows in zip(
        parts, both[::-1], both, taken, found, strict=True
    ):
        a, b = (short_name(study.label(run.arm)) for run in (right, wrong))
        heading = f"right with {a}, wrong with {b}: {len(all_rows):,}"
        part.suptitle(heading, x=0.01, ha="left", fontsize=9.5)
        words: list[Words] = [
            [
                ("true", names[label[row]], "black"),
                *(
                    (
                        study.label(run.arm),
                        names[run.predicted[row]],
                        arm_style(study.arms, run.arm)[0],
                    )
                    for run in both
                ),
            ]
            for row in rows
        ]
        show_images(part, [images.test_images[row] for row in rows], words)
    return figure


def mistakes(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the wrong test images, int64 (N,), and their confidence, float64 (N,).

    The most confident come first. Confidence is the largest predicted probability.
    """
    confidence = softmax(run.logits.astype(np.float64), axis=1).max(axis=1)
    rows = np.flatnonzero(~run.correct)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    return rows, confidence[rows]


def mistake_images(run: Run, images: Dataset, title: str) -> Figure:
    """Draw the fifteen most confident `mistakes`, with true and predicted class and confidence."""
    rows, confidence = (found[:MOST_MISTAKES] for found in mistakes(run))
    names = class_names(images.classes)
    figure = new_figure(0.5 + LINE_HEIGHT * _lines(len(rows)), title)
    words: list[Words] = [
        [
            ("true", names[run.label[row]], "black"),
            ("predicted", names[run.predicted[row]], DARK_ORANGE),
            ("confidence", f"{100 * sure:.1f} %", "black"),
        ]
        for row, sure in zip(rows, confidence, strict=True)
    ]
    show_images(figure, [images.test_images[row] for row in rows], words)
    return figure
