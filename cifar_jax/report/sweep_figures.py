"""Draw the figures of a study with a swept setting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import listed
from cifar_jax.report.direct_labels import name_lines
from cifar_jax.report.drawing import (
    GREY,
    arm_style,
    histories,
    integer_epochs,
    legend_below,
    mean_line,
    new_figure,
    time_unit,
    within,
)
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.study_figures import StudyFigure, image_figures, planned
from cifar_jax.study.collect import SweepStudy
from cifar_jax.study.grid import Sweep
from cifar_jax.study.values import Value

# The axis is logarithmic from this ratio of the largest to the smallest value.
LOG_RATIO = 4
MOST_PANELS = 24  # values in the figure with a panel for each
DIVERGED = "diverged, counted as chance"


@dataclass(frozen=True)
class Scale:
    """Positions of a setting's values on an axis.

    Attributes:
        positions: one a value.
        words: suffix of the axis label, for example "logarithmic".
        numbers: whether the values are numbers, so that a line may join them.
    """

    positions: np.ndarray
    words: str
    numbers: bool


def scale(values: Sequence[Value]) -> Scale:
    """Choose a scale: logarithmic for numbers of different magnitude, else linear.

    Other values than numbers, and magnitudes that need a logarithm but include 0, are equidistant.
    """
    steps = np.arange(len(values), dtype=float)
    numbers = [float(v) for v in values if type(v) in (int, float)]
    if len(numbers) < len(values):
        return Scale(steps, "", False)
    magnitudes = [abs(v) for v in numbers if v]
    far = bool(magnitudes) and max(magnitudes) >= LOG_RATIO * min(magnitudes)
    if not far:
        return Scale(np.array(numbers), "", True)
    if min(numbers) <= 0:
        return Scale(steps, "not to scale", True)
    return Scale(np.log10(numbers), "logarithmic", True)


def _setting_axis(axes: Axes, sweep: Sweep, name: str) -> tuple[np.ndarray, float]:
    """Set ticks at the values. Return their positions and a small distance to separate arms."""
    where = scale(sweep.values)
    x = where.positions
    names = [sweep.value_name(value) for value in sweep.values]
    long = not where.numbers and max(map(len, names)) > 8
    axes.set_xticks(x, names)
    if long:
        axes.tick_params(axis="x", rotation=20)
    axes.set_xlabel(f"{name}, {where.words}" if where.words else name)
    width = float(x.max() - x.min()) or 1.0
    axes.set_xlim(x.min() - 0.06 * width, x.max() + 0.06 * width)
    return x, 0.008 * width


def _series(
    axes: Axes,
    x: np.ndarray,
    rows: Sequence[dict[str, Any]],
    mean: str,
    joined_up: bool,
    **style: Any,
) -> None:
    """Draw means in per cent with their intervals: a line and a band, or marks and whiskers.

    Args:
        rows: statistics, one a position; those whose mean is None are omitted.
        mean: their key.
        style: "color", "marker" and "label" of the means.
    """
    points = [(at, row) for at, row in zip(x, rows, strict=True) if row[mean] is not None]
    at = np.array([position for position, _ in points])
    means = 100 * np.array([row[mean] for _, row in points])
    ends = 100 * np.array([row["ci_t"] or (np.nan, np.nan) for _, row in points], float)
    ends = ends.reshape(-1, 2)
    line = "-" if joined_up else "none"
    axes.plot(at, means, linestyle=line, zorder=3, **style)
    if joined_up and len(points) > 1:
        axes.fill_between(at, *ends.T, color=style["color"], alpha=0.2, linewidth=0)
    else:
        axes.vlines(at, *ends.T, color=style["color"], linewidth=1.6)


def accuracy_by_setting(study: SweepStudy, summary: dict[str, Any], title: str) -> Figure:
    """Draw test accuracy against the setting: means, intervals, every seed, diverged runs."""
    arms, values = summary["arms"], study.sweep.values
    figure = new_figure(3.9, title)
    axes = figure.subplots()
    x, offset = _setting_axis(axes, study.sweep, summary["sweep"]["name"])
    joined_up = scale(values).numbers
    lowest = 100.0
    for number, arm in enumerate(arms):
        cells = [cell for cell in summary["cells"] if cell["arm"] == arm]
        colour, marker = arm_style(arms, arm)
        shift = offset * (2 * number - len(arms) + 1)
        rows = [cell["test_accuracy"] for cell in cells]
        style = {"color": colour, "marker": marker, "label": summary["labels"][arm]}
        _series(axes, x + shift, rows, "mean", joined_up, **style)
        for at, cell in zip(x + shift, cells, strict=True):
            _dots(
                axes,
                at,
                cell["test_accuracy"]["values"],
                [seed in cell["diverged_seeds"] for seed in cell["seeds"]],
                colour,
            )
            lowest = min([lowest, *(100 * v for v in cell["test_accuracy"]["values"])])
    chance = 100 * summary["chance"]
    if lowest < 2 * chance:
        axes.axhline(chance, color=GREY, linestyle=":", linewidth=1.2, label="chance")
    axes.set_ylabel("test accuracy [%]")
    within(axes, 0, 100)
    _mark_diverged(axes, bool(summary["diverged"]))
    if not (joined_up and name_lines(axes)):
        legend_below(figure, axes, 3)
    return figure


def _dots(axes: Axes, x: float, values: Sequence[float], lost: Sequence[bool], colour: str) -> None:
    """Draw a small dot for each seed, and a cross for a diverged one."""
    for diverged, marker, size, width in ((False, "o", 3, 0.0), (True, "x", 7, 1.6)):
        y = [100 * v for v, d in zip(values, lost, strict=True) if d == diverged]
        axes.plot(
            [x] * len(y),
            y,
            linestyle="none",
            color=colour,
            marker=marker,
            markersize=size,
            markeredgewidth=width,
            alpha=1.0 if diverged else 0.6,
            zorder=4,
        )


def _mark_diverged(axes: Axes, some: bool) -> None:
    """Add the crosses of diverged runs to the legend."""
    if some:
        axes.plot([], [], linestyle="none", marker="x", color=GREY, markersize=7, label=DIVERGED)


def gain_by_setting(study: SweepStudy, summary: dict[str, Any], title: str) -> Figure:
    """Draw the paired difference of test accuracy of two arms against the setting."""
    second = summary["compared"][1]
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    x, _ = _setting_axis(axes, study.sweep, summary["sweep"]["name"])
    colour, marker = arm_style(summary["arms"], second)
    joined_up = scale(study.sweep.values).numbers
    axes.axhline(0, color=GREY, linewidth=1)
    _series(axes, x, summary["gain"], "mean_difference", joined_up, color=colour, marker=marker)
    for at, row, one in zip(x, summary["gain"], study.studies, strict=True):
        lost = {seed for arm, seed in one.diverged if arm in summary["compared"]}
        _dots(axes, at, row["differences"], [seed in lost for seed in row["seeds"]], colour)
    axes.set_ylabel("difference of test accuracy [points]")
    within(axes, -100, 100)
    if any(row["diverged_pairs"] for row in summary["gain"]):
        label = f"one of the pair {DIVERGED}"
        cross = Line2D([], [], linestyle="none", marker="x", color=colour, markersize=7)
        figure.legend([cross], [label], loc="outside lower center")
    return figure


def curves_by_setting(study: SweepStudy, summary: dict[str, Any], title: str) -> Figure:
    """Draw the finished runs' validation accuracy over the epochs, a panel for each value."""
    values = study.sweep.values[:MOST_PANELS]
    lines = math.ceil(len(values) / 2)
    figure = new_figure(0.9 + 1.75 * lines, title)
    panels = figure.subplots(lines, 2, squeeze=False, sharey=True, sharex="col")
    for axes, value, one in zip(panels.flat, values, study.studies, strict=False):
        for arm in summary["arms"]:
            if one.runs[arm]:
                y = 100 * histories(one.runs[arm], "val_accuracy")
                epochs = np.arange(1, y.shape[1] + 1)
                colour, marker = arm_style(summary["arms"], arm)
                mean_line(axes, epochs, y, colour, 100, marker=marker)
        lost = f", {len(one.diverged)} diverged" if one.diverged else ""
        name = study.sweep.value_name if "+" in study.sweep.field else study.sweep.at
        axes.set_title(f"{name(value)}{lost}", fontsize=9)
        integer_epochs(axes)
        axes.tick_params(labelbottom=True)
    for axes in panels.flat[len(values) :]:
        axes.set_visible(False)
    for axes in panels.flat[: max(len(values) - 2, 0)]:
        axes.set_xlabel("")
    figure.supylabel("validation accuracy [%]", fontsize="medium")
    _arm_legend(figure, summary["arms"], summary["labels"])
    return figure


def _arm_legend(figure: Figure, arms: Sequence[str], labels: dict[str, str]) -> None:
    styles = [arm_style(arms, arm) for arm in arms]
    handles = [Line2D([], [], color=colour, marker=marker) for colour, marker in styles]
    names = [labels[arm] for arm in arms]
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(arms)))


def time_by_setting(study: SweepStudy, summary: dict[str, Any], title: str) -> Figure:
    """Draw the training time of the finished runs against the setting."""
    arms, values = summary["arms"], study.sweep.values
    figure = new_figure(3.4, title)
    axes = figure.subplots()
    x, offset = _setting_axis(axes, study.sweep, summary["sweep"]["name"])
    cells = [cell for cell in summary["cells"] if cell["finished"]]
    longest = max(max(cell["finished"]["train_seconds"]["values"]) for cell in cells)
    unit, divisor = time_unit(longest)
    for number, arm in enumerate(arms):
        colour, marker = arm_style(arms, arm)
        shift = offset * (2 * number - len(arms) + 1)
        found = [
            (at + shift, np.array(cell["finished"]["train_seconds"]["values"]) / divisor)
            for at, cell in zip(x, [c for c in summary["cells"] if c["arm"] == arm], strict=True)
            if cell["finished"]
        ]
        for at, seconds in found:
            axes.plot([at] * len(seconds), seconds, "o", color=colour, markersize=3, alpha=0.6)
        line = "-" if scale(values).numbers else "none"
        axes.plot(
            [at for at, _ in found],
            [seconds.mean() for _, seconds in found],
            linestyle=line,
            color=colour,
            marker=marker,
            label=summary["labels"][arm],
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"training time [{unit}]")
    if not name_lines(axes):
        legend_below(figure, axes, 3)
    return figure


def _no_gain(summary: dict[str, Any]) -> str:
    if not summary["compared"]:
        return "It needs two arms, and the study has one."
    if not any(row["n"] for row in summary["gain"]):
        return "No seed has a result with both arms."
    return ""


def sweep_figures(
    study: SweepStudy, summary: dict[str, Any], images: Dataset | None
) -> list[StudyFigure]:
    """Return all figures of a sweep."""
    first = study.first
    where, name = dataset_name(first), summary["sweep"]["name"]
    arms = listed([summary["labels"][arm] for arm in summary["arms"]])
    several = len(summary["seeds"]) > 1
    band = ", with its 95 % interval as in the tables" if several else ""
    lost = " A run that diverged is marked and counts as chance." if summary["diverged"] else ""
    a, b = (
        (summary["labels"][arm] for arm in summary["compared"]) if summary["compared"] else ("", "")
    )
    many = len(study.sweep.values)
    panels = (
        f" Only the first {MOST_PANELS} of {many} values are shown." if many > MOST_PANELS else ""
    )
    device = summary["device"] or "an unknown device"
    entry = partial(planned, where)
    pictures = image_figures(first, images)
    return [
        *(pictures[:1] if "data." in study.sweep.field else pictures),
        entry(
            "03_accuracy_by_setting",
            f"Test accuracy by {name}",
            f"test accuracy against {name}, {arms}. Small dots are single seeds, large marks "
            f"their mean{band}.{lost} Do not choose by the highest mark: the table of chosen "
            "values chooses on the validation images.",
            partial(accuracy_by_setting, study, summary),
        ),
        entry(
            "04_gain_by_setting",
            f"Gain by {name}",
            f"test accuracy of {b} minus that of {a} with the same seed, against {name}. Small "
            f"dots are pairs of runs, large marks their mean{band}.{lost}",
            partial(gain_by_setting, study, summary),
            _no_gain(summary),
        ),
        entry(
            "05_curves_by_setting",
            f"Validation accuracy by {name}",
            f"validation accuracy over the epochs at each {name}, {arms}; means of the finished "
            f"runs{', bands 95 % intervals of the mean' if several else ''}. Runs that diverged "
            f"are not included.{panels}",
            partial(curves_by_setting, study, summary),
        ),
        entry(
            "06_time_by_setting",
            f"Training time by {name}",
            f"training time, without compilation, against {name}, {arms}, on {device}. Small "
            "dots are single finished runs, large marks their mean.",
            partial(time_by_setting, study, summary),
        ),
    ]
