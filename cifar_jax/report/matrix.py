"""Draw matrices of classes against classes, of limited size for any number of classes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from cifar_jax.report.labels import MOST_NAMED, class_names, name_classes

MOST_CELLS = 250  # a side; more classes share a cell


def cells_note(classes: Sequence[str]) -> str:
    """Return a caption's sentences on classes that share cells, or ""."""
    if len(classes) <= MOST_CELLS:
        return ""
    return " Neighbouring classes share a cell. It shows the value furthest from zero."


def blocks(values: np.ndarray, most: int = MOST_CELLS) -> tuple[np.ndarray, int]:
    """Shrink a matrix to at most `most` cells a side.

    A cell has the value furthest from zero of a block of k x k. A mean would hide a single
    confusion among a thousand classes.

    Args:
        values: floats (n, n); NaN for no value.

    Returns:
        (m, m), and k, which is 1 if n is at most `most`.
    """
    n = len(values)
    k = -(-n // most)
    m = -(-n // k)
    padded = np.full((m * k, m * k), np.nan)
    padded[:n, :n] = values
    cells = padded.reshape(m, k, m, k).swapaxes(1, 2).reshape(m, m, k * k)
    furthest = np.argmax(np.nan_to_num(np.abs(cells), nan=-1), axis=2)
    return np.take_along_axis(cells, furthest[..., None], axis=2)[..., 0], k


def draw_matrix(
    axes: Axes,
    values: np.ndarray,
    classes: Sequence[str],
    inches: float,
    label: str,
    **colours: Any,
) -> AxesImage:
    """Draw rows of true and columns of predicted classes in colours, with a colour bar.

    Up to 40 classes are named. Of more, a few are numbered, from 0.

    Args:
        axes: to draw on.
        values: floats (classes, classes).
        classes: their names.
        inches: the side of the square.
        label: of the colour bar, with its unit.
        colours: `cmap` and `norm` of the picture.
    """
    n, figure = len(classes), axes.figure
    assert isinstance(figure, Figure)
    cells, k = blocks(values)
    end = k * len(cells) - 0.5
    image = axes.imshow(cells, extent=(-0.5, end, end, -0.5), **colours)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0 if n <= MOST_NAMED else 3)
    names = class_names(classes)
    for which, what in (("x", "predicted class"), ("y", "true class")):
        name_classes(axes, which, names, inches)
        axes.set(**{f"{which}label": what + (" (number)" if n > MOST_NAMED else "")})
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.85)
    bar.outline.set_visible(False)
    return image


def write_cells(
    axes: Axes, image: AxesImage, values: np.ndarray, text: Callable[[int, int], str], size: float
) -> None:
    """Write a text in each cell with a value, in black or white, for contrast.

    Args:
        axes, image: of `draw_matrix`.
        values: those that `draw_matrix` drew.
        text: from a row and a column to the text.
        size: of the letters, in points.
    """
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        colour = "white" if dark else "black"
        words = text(row, column)
        cell = axes.text(column, row, words, ha="center", va="center", color=colour, fontsize=size)
        cell.set_in_layout(False)  # It is inside, and a layout of hundreds of texts is slow.
