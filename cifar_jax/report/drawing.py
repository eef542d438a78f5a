"""Style and common parts of a study's figures.

`figures.mplstyle` has the style, with colours that colour-blind readers can distinguish. An arm
has a colour and a marker. A line is the mean over the seeds. Several seeds add its 95 % Student t
interval, as a band or whisker.
"""

import io
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from rich.cells import cell_len

from cifar_jax.report.direct_labels import separate
from cifar_jax.report.labels import short_name, use_fonts, wrapped
from cifar_jax.storage import write_bytes
from cifar_jax.study.collect import Run, Study

_STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("figures.mplstyle"), use_default_template=False
)
PALETTE: tuple[str, ...] = tuple(_STYLE["axes.prop_cycle"].by_key()["color"])
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# How `imshow` draws uint8 images, colour or grey.
PIXELS: dict[str, Any] = {"interpolation": "nearest", "cmap": "gray", "vmin": 0, "vmax": 255}
GREY = "#666666"
TITLE_LINE = 66  # characters
LEGEND_LINE = 76
DPI = 160
WIDTH = 5.2  # inches; 9.5 pt stays legible in a column or on a telephone
MOST_ROWS = 40  # seeds, arms or classes in a column


def styled() -> AbstractContextManager[None]:
    """Return a context that sets the style of the figures."""
    return matplotlib.style.context(["default", "cifar_jax.report.figures"])


class Drawn(NamedTuple):
    """A drawn figure.

    Attributes:
        picture: its pixels, in RGB.
        svg: the file in UTF-8; empty if it was not asked for.
    """

    picture: Image.Image
    svg: bytes = b""

    def png(self) -> bytes:
        """Encode the pixels. Other threads of Python run meanwhile."""
        content = io.BytesIO()
        # Fewer bytes than Matplotlib's RGBA, in half of the time.
        self.picture.save(content, "PNG", dpi=(DPI, DPI), compress_level=3)
        return content.getvalue()


def render(build: Callable[[], Figure], svg: bool = False) -> Drawn:
    """Draw a figure. The same input gives the same bytes. `svg` asks for that file, too."""
    with styled():
        figure = build()
        use_fonts(figure)
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        # One layout for both kinds: `savefig` would make it twice.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
        figure.set_layout_engine("none")
        separate(figure)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        text = io.StringIO()
        if svg:
            FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return Drawn(picture, text.getvalue().encode())


def write_figure(drawn: Drawn, directory: Path, stem: str) -> tuple[Path, Path]:
    """Write a figure as PNG and as SVG, atomically.

    Returns:
        The two paths, PNG first.
    """
    png, svg = directory / f"{stem}.png", directory / f"{stem}.svg"
    write_bytes(png, drawn.png())
    write_bytes(svg, drawn.svg)
    return png, svg


def mean_and_interval(
    values: np.ndarray, least: float = -math.inf, most: float = math.inf
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute the mean over the seeds and its 95 % Student t interval.

    Args:
        values: floats (seeds, ...).
        least, most: limits of the interval.

    Returns:
        The mean, with the shape of one seed, and the ends, (2, ...). The ends are NaN where all
        seeds are equal, and None for one seed.
    """
    n = len(values)
    mean = values.mean(axis=0)
    if n < 2:
        return mean, None
    from scipy.special import stdtrit  # One run needs no SciPy, whose import is slow.

    half = stdtrit(n - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(n)
    half = np.where(np.ptp(values, axis=0) > 0, half, np.nan)
    return mean, np.clip([mean - half, mean + half], least, most)


def arm_style(arms: Sequence[str], arm: str) -> tuple[str, str]:
    """Return colour and marker of an arm. The report's two arms always have the same."""
    order = [name for name in ("none", "batch") if name in arms]
    order += [name for name in arms if name not in order]
    # BatchNorm has its colour also without a baseline.
    offset = 1 if "batch" in arms and "none" not in arms else 0
    again, index = divmod(order.index(arm) + offset, len(PALETTE))
    # A colour that comes again has another marker.
    return PALETTE[index], MARKERS[(index + again) % len(MARKERS)]


def drawn_arms(study: Study) -> list[tuple[str, str, str, list[Run]]]:
    """Return name, colour, marker and runs of each arm that has a run."""
    return [
        (study.label(arm), *arm_style(study.arms, arm), study.runs[arm])
        for arm in study.arms
        if study.runs.get(arm)
    ]


def histories(runs: Sequence[Run], column: str) -> np.ndarray:
    """Return one column of the histories, (seeds, epochs of the shortest). None becomes NaN."""
    curves = [run.curve(column) for run in runs]
    epochs = min(map(len, curves))
    return np.array([curve[:epochs] for curve in curves], float)


def new_figure(height: float, title: str) -> Figure:
    """Make an empty figure, one column wide and `height` inches high, with a wrapped title."""
    figure = Figure(figsize=(WIDTH, height))
    figure.suptitle(wrapped(title, TITLE_LINE), x=0.01, ha="left")
    return figure


def mean_line(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    colour: str,
    most: float = math.inf,
    **style: Any,
) -> None:
    """Draw the mean over the seeds. Several seeds add its interval as a band.

    Args:
        axes: to draw on.
        x: (n,).
        values: (seeds, n), from 0 to `most`.
        colour: of line and band.
        most: limit of the interval.
        style: of the line, for `Axes.plot`. About eight points have its marker.
    """
    mean, ends = mean_and_interval(values, 0, most)
    marker = style.pop("marker", "o" if len(x) < 3 else None)
    # A single point shows no dashes: the mark of a dashed line is hollow.
    fill = "none" if style.get("linestyle") == "--" else "full"
    marks = {"marker": marker, "markevery": -(-len(x) // 8), "fillstyle": fill, "markersize": 4}
    axes.plot(x, mean, color=colour, **marks, **style)
    if ends is not None:
        axes.fill_between(x, *ends, color=colour, alpha=0.2, linewidth=0)


def within(axes: Axes, low: float, high: float, which: str = "y") -> None:
    """Cut an axis to the range of its values, with a margin for a marker."""
    edge = 0.015 * (high - low)
    ends = axes.get_ylim() if which == "y" else axes.get_xlim()
    cut = max(ends[0], low - edge), min(ends[1], high + edge)
    axes.set(**{f"{which}lim": cut})


def _fits(labels: Sequence[str], columns: int) -> bool:
    """Return whether a legend with that many columns is as wide as a figure, at most."""
    parts = np.array_split(labels, min(columns, len(labels)))
    longest = [max(map(cell_len, part)) for part in parts]
    return sum(longest) + 5 * len(longest) <= LEGEND_LINE


def legend_below(figure: Figure, axes: Axes, most: int) -> None:
    """Draw the legend of `axes` below the whole figure, in up to `most` columns that fit."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [short_name(label, LEGEND_LINE - 5) for label in labels]
    columns = next((n for n in range(most, 1, -1) if _fits(labels, n)), 1)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.2,
        handlelength=1.8,
    )


def integer_epochs(axes: Axes) -> None:
    """Label the horizontal axis with whole epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit for times up to `seconds`, and its length in seconds."""
    return ("min", 60.0) if seconds > 600 else ("s", 1.0)
