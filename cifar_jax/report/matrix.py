"""Draw matrices of classes against classes, of limited size for any number of classes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

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


class Cells(Artist):
    """Texts in the middles of cells. A `Text` for each would take twice as long.

    Attributes:
        entries: row, column, text and colour of each cell.
        size: of the letters, in points.
    """

    def __init__(self, entries: Sequence[tuple[int, int, str, str]], size: float) -> None:
        super().__init__()
        self.entries, self.size = entries, size
        self.set_zorder(3)  # of texts
        self.set_in_layout(False)  # The cells are inside, and only change what is in them.

    def draw(self, renderer: RendererBase) -> None:
        """Draw the texts."""
        assert self.axes is not None
        # All are as high as this one, so that digits share a line.
        middle = Text(0, 0, "0", fontsize=self.size, figure=self.get_figure())
        font, extent = middle.get_fontproperties(), middle.get_window_extent(renderer)
        below = (extent.y0 + extent.y1) / 2
        places = self.axes.transData.transform([(entry[1], entry[0]) for entry in self.entries])
        height = renderer.get_canvas_width_height()[1] if renderer.flipy() else 0
        width = functools.cache(lambda s: renderer.get_text_width_height_descent(s, font, False)[0])
        context = renderer.new_gc()
        for (_, _, words, colour), (x, y) in zip(self.entries, places, strict=True):
            context.set_foreground(colour)
            at = abs(height - (y - below))
            renderer.draw_text(context, x - width(words) / 2, at, words, font, 0)
        context.restore()


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
    entries = []
    luminance = image.to_rgba(values)[..., :3] @ (0.299, 0.587, 0.114)
    for row, column in np.argwhere(~np.isnan(values)).tolist():
        colour = "white" if luminance[row, column] < 0.5 else "black"
        entries.append((row, column, text(row, column), colour))
    axes.add_artist(Cells(entries, size))
