"""Name lines at their ends, in their colours, instead of in a legend."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from cifar_jax.report.labels import short_name

MOST_DIRECT = 3  # lines; more have a legend
_CONTRAST = 4.5  # of letters with white paper, WCAG 2
_GAP = 5.0  # points between a label and its place


class EndLabel(Annotation):
    """A label at the height of a value: on the right of its axes, or on the left of a place."""

    def __init__(self, text: str, value: float, left_of: float | None, **style: Any) -> None:
        right = left_of is None
        super().__init__(
            text,
            (1.0 if left_of is None else left_of, value),
            xycoords=("axes fraction" if right else "data", "data"),
            xytext=(_GAP if right else -_GAP, 0.0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            annotation_clip=False,
            clip_on=False,
            **style,
        )


def ink(colour: str) -> tuple[float, float, float]:
    """Darken a colour until letters of it have a contrast of 4.5 with white paper."""
    rgb = np.array(to_rgb(colour))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= _CONTRAST:
            red, green, blue = map(float, rgb)
            return red, green, blue
        rgb = 0.95 * rgb


def label_ends(
    axes: Axes,
    entries: Sequence[tuple[str, float, str]],
    left_of: float | None = None,
    **style: Any,
) -> None:
    """Write a label on the right of the axes for each entry. `separate` moves those that overlap.

    Args:
        axes: with its lines.
        entries: text, value on the vertical axis, and colour.
        left_of: a value on the horizontal axis; the labels are on its left instead.
        style: of the text.
    """
    for text, value, colour in entries:
        axes.add_artist(EndLabel(short_name(text), value, left_of, color=ink(colour), **style))


def name_lines(axes: Axes) -> bool:
    """Name the lines of `axes` at their right ends, if there are at most three, all with values.

    Returns:
        Whether it did. Otherwise they need a legend.
    """
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    if len(lines) > MOST_DIRECT:
        return False
    entries = []
    for line in lines:
        values = np.asarray(line.get_ydata(), np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return False
        entries.append((str(line.get_label()), float(values[-1]), str(line.get_color())))
    label_ends(axes, entries)
    return True


def separate(figure: Figure) -> None:
    """Move end labels as little as possible, so that they neither overlap nor leave their axes.

    The figure has its layout and its dpi.
    """
    for axes in figure.axes:
        found = [text for text in axes.texts if isinstance(text, EndLabel)]
        if len(found) < 2:
            continue
        wanted = axes.transData.transform([(0, label.xy[1]) for label in found])[:, 1]
        order = np.argsort(wanted, kind="stable")
        height = max(label.get_window_extent().height for label in found)
        if (np.diff(wanted[order]) >= height).all():
            continue
        from scipy.optimize import isotonic_regression  # Its import is slow.

        steps = height * np.arange(len(found))
        # The least squares distance with gaps of at least one height.
        places = isotonic_regression(wanted[order] - steps).x
        bottom, top = axes.bbox.y0 + height / 2, axes.bbox.y1 - height / 2
        places = np.clip(places, bottom, max(bottom, top - steps[-1])) + steps
        for index, place in zip(order, places, strict=True):
            label = found[index]
            offset = 72 * (place - wanted[index]) / figure.dpi
            label.xyann = (label.xyann[0], float(offset))
