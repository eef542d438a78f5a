"""Draw the loss landscape along the gradient."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_jax.report.direct_labels import name_lines
from cifar_jax.report.drawing import (
    arm_style,
    integer_epochs,
    legend_below,
    mean_line,
    new_figure,
)
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.study_figures import StudyFigure

if TYPE_CHECKING:
    from cifar_jax.analysis.part import Findings

MOST_ARMS = 4
_TITLE = "Loss landscape along the gradient"


def _values(records: list[Any], name: str) -> np.ndarray:
    """Return what the points have, (seeds, points, ...). None becomes NaN."""
    return np.array([[getattr(point, name) for point in of.points] for of in records], float)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    """Draw the range over step sizes, mean over the seeds, of values (seeds, points, sizes)."""
    low, high = (reduce(values, axis=2).mean(axis=0) for reduce in (np.min, np.max))
    axes.fill_between(x, low, high, color=colour, alpha=0.45, linewidth=0.8, label=label)


def draw_landscape(findings: "Findings[Any]", title: str) -> Figure:
    """Draw loss and change of the gradient as bands over step sizes, and the smoothness."""
    figure = new_figure(7.2, title)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    for arm in findings.arms[:MOST_ARMS]:
        records, (colour, _) = findings.of(arm), arm_style(findings.study.arms, arm)
        label = short_name(findings.study.label(arm), 34)
        x = np.array([point.step for point in records[0].points]) / records[0].steps_per_epoch
        _band(above, x, _values(records, "losses"), colour, label)
        _band(middle, x, _values(records, "changes"), colour, label)
        mean_line(below, x, _values(records, "smoothness"), colour, label=label)
    above.set_ylabel("loss along the\ngradient [nats]")
    middle.set_ylabel("change of the\ngradient (l2)")
    below.set_ylabel("effective\nbeta-smoothness")
    for axes in (middle, below):
        axes.set_ylim(bottom=0)
    integer_epochs(below)
    if not name_lines(below):
        legend_below(figure, above, 2)
    return figure


def landscape_figure(findings: "Findings[Any]") -> StudyFigure:
    """Return the figure of a study."""
    where = dataset_name(findings.study)
    several = max(len(findings.of(arm)) for arm in findings.arms) > 1
    caption = (
        f"{where}: bands show the range over the step sizes: of the loss, and of the distance of "
        "the gradient from that of the step. The narrower and lower, the smoother. The lowest "
        "part shows the largest ratio of that distance to the length of the step: "
        "step size times norm of the gradient."
    )
    if several:
        caption += " Bands and lines are means over the seeds; pale: 95 % interval of the line."
    left = len(findings.arms) - MOST_ARMS
    if left > 0:
        caption += f" {left} more arms are only in the table."
    title = f"{_TITLE}: {where}"
    return StudyFigure("30_landscape", _TITLE, caption, lambda: draw_landscape(findings, title))
