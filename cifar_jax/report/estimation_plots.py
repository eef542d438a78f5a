"""Draw estimation plots: the values of every seed, and beside them the mean difference.

Two arms make a Gardner-Altman plot. Its right axis has the difference. Zero is at the mean of the
first arm, so the mean difference is as high as the mean of the second. More arms make a Cumming
plot, here with a row for each arm: values on the left, differences to the first arm on the right.

M. J. Gardner and D. G. Altman, "Confidence intervals rather than P values: estimation rather than
hypothesis testing", BMJ 292, 1986. J. Ho, T. Tumkaya, S. Aryal, H. Choi and A. Claridge-Chang,
"Moving beyond P values: data analysis with estimation graphics", Nature Methods 16, 2019.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from cifar_jax.report.direct_labels import label_ends
from cifar_jax.report.drawing import GREY, within
from cifar_jax.report.labels import short_name
from cifar_jax.study.statistics import MANY_SEEDS

LONGEST_ARM = 26  # columns of an arm's name beside an axis
MOST_NAMED_SEEDS = 5
MOST_LINES = 20  # seeds that lines join over the rows of a Cumming plot
_REACH = 1.4  # of a curve, in half widths of its interval


class Arm(NamedTuple):
    """An arm of an estimation plot.

    Attributes:
        name: of the arm.
        style: colour and marker.
        row: statistics: `values`, `mean` and `ci_t`.
        difference: to the first arm: `differences`, `mean_difference`, `ci_t`. None for the first.
    """

    name: str
    style: tuple[str, str]
    row: dict[str, Any]
    difference: dict[str, Any] | None = None


def mean_row(
    axes: Axes, y: float, mean: float, interval: Sequence[float] | None, scale: float = 100
) -> None:
    """Draw a mean and its interval; fractions in per cent or points."""
    if interval:
        ends = [scale * end for end in interval]
        axes.plot(ends, [y, y], color="black", linewidth=2, solid_capstyle="butt")
    axes.plot([scale * mean], [y], "D", color="black", markersize=6)


def seeds_and_mean(
    axes: Axes,
    y: float,
    found: tuple[Sequence[float], float, Sequence[float] | None],
    style: tuple[str, str],
    scale: float = 100,
) -> None:
    """Draw a row: a mark a seed, and below them the mean with its interval.

    Args:
        axes: to draw on.
        y: of the row.
        found: values of the seeds, their mean and its interval.
        style: colour and marker of the seeds.
        scale: factor of all values; 100 for fractions.
    """
    values, mean, interval = found
    colour, marker = style
    at = np.full(len(values), y - 0.25)
    axes.plot(scale * np.array(values), at, marker, color=colour, markersize=4, alpha=0.8)
    mean_row(axes, y, mean, interval, scale)


def curve(difference: dict[str, Any], scale: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return Student's t distribution whose central 95 % are the interval of a paired t test.

    Returns:
        Values and density, the largest 1, float64 (101,) each. None for another interval, or none.
    """
    ends, n = difference["ci_t"], len(difference["differences"])
    seeds_alone = difference.get("interval_rule", "seeds") == "seeds"
    if not (ends and n > 1 and seeds_alone and difference.get("paired", True)):
        return None
    mean = difference["mean_difference"]
    half = scale * max(mean - ends[0], ends[1] - mean)  # An end may be cut at the limit.
    at = np.linspace(-_REACH, _REACH, 101)
    density = stats.t.pdf(at * stats.t.ppf(0.975, n - 1), n - 1)
    return scale * mean + half * at, density / density.max()


def gardner_altman(
    left: Axes,
    right: Axes,
    arms: tuple[Arm, Arm],
    seeds: Sequence[object],
    scale: float = 100,
    reference: float | None = None,
) -> None:
    """Draw the values of two arms, and on an aligned axis their mean difference.

    Lines join the values of a seed. More than `MANY_SEEDS` seeds have bars that count them
    instead. The curve is the t distribution of the mean difference, if the
    interval is that of a paired t test.

    Args:
        left, right: two axes side by side.
        arms: the second has the difference to the first.
        seeds: of the values, for their labels; empty if the values are not paired.
        scale: factor of all values; 100 for fractions.
        reference: a difference to mark, scaled.
    """
    first, second = (scale * np.array(arm.row["values"], float) for arm in arms)
    found = arms[1].difference
    assert found is not None
    zero, gain = scale * arms[0].row["mean"], scale * found["mean_difference"]
    ends = [scale * end for end in found["ci_t"] or ()]
    if 0 < len(seeds) <= MANY_SEEDS:
        left.plot([0, 1], [first, second], color=GREY, linewidth=0.8, alpha=0.7)
        if len(seeds) <= MOST_NAMED_SEEDS:
            names = [(str(seed), value, GREY) for seed, value in zip(seeds, first, strict=True)]
            label_ends(left, names, left_of=0, fontsize=8)
    for at, (values, arm) in enumerate(zip((first, second), arms, strict=True)):
        colour, marker = arm.style
        if len(values) > MANY_SEEDS:
            _bars(left, at, values, colour)
        else:
            left.plot(np.full(len(values), at), values, marker, color=colour, alpha=0.8)
    left.set(xlim=(-0.3, 1.3), xticks=(0, 1))
    left.set_xticklabels([short_name(arm.name) for arm in arms])
    left.grid(axis="x", visible=False)
    shown = [0.0, gain, *ends, *([reference] if reference is not None else [])]
    low, high = min(*first, *second, zero + min(shown)), max(*first, *second, zero + max(shown))
    edge = 0.06 * (high - low) or 0.5
    left.set_ylim(low - edge, high + edge)
    if scale == 100:
        within(left, 0, 100)
    bottom, top = left.get_ylim()
    left.hlines([zero, zero + gain], [0, 1], [2, 2], color=GREY, linewidth=0.8)
    _difference_axis(right, found, scale, reference)
    right.set_ylim(bottom - zero, top - zero)


def _bars(axes: Axes, x: float, values: np.ndarray, colour: str) -> None:
    """Draw bars, centred at `x`, that count values."""
    counts, edges = np.histogram(values, 40)
    widths = 0.5 * counts / counts.max()
    axes.barh(edges[:-1], widths, np.diff(edges), x - widths / 2, align="edge", color=colour)


def _difference_axis(
    axes: Axes, found: dict[str, Any], scale: float, reference: float | None
) -> None:
    """Draw the mean difference, its interval and its curve, with the scale on the right."""
    gain = scale * found["mean_difference"]
    axes.hlines([0, gain], [-1, -1], [2, 0], color=GREY, linewidth=0.8)
    if shape := curve(found, scale):
        values, density = shape
        axes.fill_betweenx(values, 0, 0.7 * density, color=GREY, alpha=0.3, linewidth=0)
    if found["ci_t"]:
        ends = [scale * end for end in found["ci_t"]]
        axes.plot([0, 0], ends, color="black", linewidth=2, solid_capstyle="butt")
    axes.plot([0], [gain], "D", color="black", markersize=6)
    if reference is not None:
        axes.axhline(reference, color=GREY, linestyle=":", linewidth=1.4)
        axes.text(0.98, reference, "published", color=GREY, ha="right", va="bottom", fontsize=8.5)
    axes.set(xlim=(-0.35, 1), xticks=[])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["right"].set_visible(True)
    axes.grid(visible=False)


def cumming(figure: Figure, arms: Sequence[Arm], scale: float, labels: tuple[str, str]) -> None:
    """Draw the values of every arm, and beside them the differences to the first arm.

    Thin lines join the values of up to 20 seeds, if all arms have as many. A curve is the t
    distribution of a mean difference, if its interval is that of a paired t test.

    Args:
        figure: without axes.
        arms: a row each. A star marks an unpaired difference.
        scale: factor of all values; 100 for fractions.
        labels: of the two axes.
    """
    left, right = figure.subplots(1, 2, sharey=True)
    raw = [scale * np.array(arm.row["values"], float) for arm in arms]
    paired = all(arm.difference.get("paired", True) for arm in arms if arm.difference)
    if paired and len({len(values) for values in raw}) == 1 and len(raw[0]) <= MOST_LINES:
        rows = np.arange(len(arms)) - 0.25
        left.plot(np.array(raw), rows, color=GREY, linewidth=0.6, alpha=0.5)
    for y, arm in enumerate(arms):
        row, found = arm.row, arm.difference
        seeds_and_mean(left, y, (row["values"], row["mean"], row["ci_t"]), arm.style, scale)
        if found is None:
            continue
        if shape := curve(found, scale):
            values, density = shape
            right.fill_between(values, y, y + 0.4 * density, color=GREY, alpha=0.3, linewidth=0)
        numbers = found["differences"], found["mean_difference"], found["ci_t"]
        seeds_and_mean(right, y, numbers, arm.style, scale)
    right.axvline(0, color=GREY, linewidth=1)
    if scale == 100:
        within(left, 0, 100, "x")
        within(right, -100, 100, "x")
    names = [
        short_name(arm.name, LONGEST_ARM) + " *" * (not (arm.difference or {}).get("paired", True))
        for arm in arms
    ]
    left.set_yticks(range(len(arms)), names)
    left.set_ylim(len(arms) - 0.4, -0.6)
    for axes, label in ((left, labels[0]), (right, labels[1])):
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
    right.tick_params(axis="y", length=0)
