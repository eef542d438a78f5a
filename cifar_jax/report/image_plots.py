"""Draw the figures with images of the dataset."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
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
# The unit is the longer side of an image, see `_draw_grid`.
_CELL, _WORDS = (2.1, 1.39), 0.9  # of an image beside its words; their width
_NAMED, _NAME = (1.18, 1.52), 0.25  # of an image below its name; the height of the name

# Lines of text next to an image: label, value and colour.
Words = list[tuple[str, str, str]]


def _draw_grid(
    figure: Figure | SubFigure,
    images: Sequence[np.ndarray | None],
    columns: int,
    cell: tuple[float, float],
    margins: tuple[float, float],
) -> tuple[Axes, list[tuple[float, float, float]]]:
    """Draw images in lines, all on one axes: an axes for each image takes far longer.

    Args:
        figure: without axes.
        images: uint8 (H, W, C); None leaves a cell empty.
        columns: images in a line.
        cell: width and height. The unit is the longer side of an image.
        margins: free width on the right, and free height above.

    Returns:
        The axes, and left, top and width of each cell's image.
    """
    axes = figure.subplots()
    axes.axis("off")
    places = []
    for number, image in enumerate(images):
        line, column = divmod(number, columns)
        left, top, width, height = column * cell[0], line * cell[1], 1.0, 1.0
        if image is not None:
            height, width = np.divide(image.shape[:2], max(image.shape[:2])).tolist()
            axes.imshow(image, extent=(left, left + width, top + height, top), **PIXELS)
        places.append((left, top, width))
    lines = max(1, -(-len(images) // columns))
    axes.set_xlim(0, (columns - 1) * cell[0] + 1 + margins[0])
    axes.set_ylim((lines - 1) * cell[1] + 1, -margins[1])
    axes.set_aspect("equal")
    return axes, places


def samples(images: Dataset, title: str) -> Figure:
    """Draw the first training image of each class, for up to 40 classes."""
    names = class_names(images.classes)[:MOST_NAMED]
    columns = 5
    figure = new_figure(0.5 + 1.2 * -(-len(names) // columns), title)
    labels = np.asarray(images.train_labels)
    rows = [np.flatnonzero(labels == label)[:1] for label in range(len(names))]
    found = [images.train_images[row[0]] if len(row) else None for row in rows]
    axes, places = _draw_grid(figure, found, columns, _NAMED, (0, _NAME))
    for name, image, (left, top, width) in zip(names, found, places, strict=True):
        if image is not None:
            at = left + width / 2, top - 0.4 * _NAME
            axes.text(*at, name, ha="center", fontsize=9).set_in_layout(False)
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
    """Draw images, three in a line, each with its words on the right."""
    axes, places = _draw_grid(figure, images, _IN_A_LINE, _CELL, (_WORDS, 0))
    for (left, top, width), lines_of_text in zip(places, words, strict=True):
        for number, (label, value, colour) in enumerate(lines_of_text):
            axes.text(
                left + width + 0.08,
                top + 0.03 + 0.33 * number,
                f"{short_name(label)}\n{value}",
                va="top",
                fontsize=7.5,
                color=colour,
            ).set_in_layout(False)
    if not images:
        axes.text(0, 0.5, "No such image.")


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
