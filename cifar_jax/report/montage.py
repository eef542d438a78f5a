"""Draw pictures with the answers of a network."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from cifar_jax.report.drawing import GREY, PALETTE, WIDTH
from cifar_jax.report.labels import short_name

_COLUMNS, _HEIGHT = 2, 1.75  # in a row; inches of a row
_LONGEST = 34  # characters of a line
_UNLIKE = PALETTE[1]


class Answered(NamedTuple):
    """A picture with its answer.

    Attributes:
        name: of the file.
        whole: the whole picture, uint8 (H, W, 3).
        pixels: what the network sees, uint8 (side, side, 3).
        top: the most probable classes with their probabilities, best first.
        words: a line below them, such as the networks that agree.
        unlike: whether it is unlike the training images.
    """

    name: str
    whole: np.ndarray
    pixels: np.ndarray
    top: Sequence[tuple[str, float]]
    words: str
    unlike: bool


def montage(pictures: Sequence[Answered], title: str) -> Figure:
    """Draw each picture with the crop's frame, the network's input, and the answer."""
    rows = -(-len(pictures) // _COLUMNS)
    figure = Figure(figsize=(1.5 * WIDTH, 0.45 + _HEIGHT * rows))
    figure.suptitle(title, x=0.01, ha="left")
    cells = np.ravel(figure.subfigures(rows, _COLUMNS, squeeze=False))
    for cell, picture in zip(cells, pictures, strict=False):
        _draw(cell, picture)
    return figure


def _draw(cell: SubFigure, picture: Answered) -> None:
    whole, seen, words = cell.subplots(1, 3, width_ratios=(1.2, 1, 1.5))
    for axes, pixels in ((whole, picture.whole), (seen, picture.pixels)):
        axes.axis("off")
        axes.imshow(pixels, interpolation="nearest" if pixels is picture.pixels else None)
    height, width = picture.whole.shape[:2]
    side = min(height, width)
    if height != width:
        corner = (width - side) / 2 - 0.5, (height - side) / 2 - 0.5
        whole.add_patch(Rectangle(corner, side, side, fill=False, color="white", lw=2.2))
        whole.add_patch(Rectangle(corner, side, side, fill=False, color="black", lw=0.8))
    _bars(words, picture)
    cell.suptitle(short_name(picture.name, _LONGEST), fontsize=8, x=0.02, ha="left", color=GREY)


def _bars(axes: Axes, picture: Answered) -> None:
    """Draw the probabilities as bars, with the classes above them."""
    places = np.arange(len(picture.top))
    shares = [share for _, share in picture.top]
    axes.barh(places + 0.22, shares, 0.2, color=[PALETTE[0], *[GREY] * (len(places) - 1)])
    for place, (name, share) in zip(places, picture.top, strict=True):
        text = f"{short_name(name)} {100 * share:.1f} %"
        axes.text(0, place + 0.05, text, va="bottom", fontsize=8.5 if place else 9.5)
    axes.set(xlim=(0, 1), ylim=(len(places) + 0.6, -0.6))
    words = [*(["unlike its training images"] if picture.unlike else []), picture.words]
    colour = _UNLIKE if picture.unlike else GREY
    axes.text(
        0, len(places) - 0.35, "\n".join(filter(None, words)), va="top", fontsize=8, color=colour
    )
    axes.axis("off")
