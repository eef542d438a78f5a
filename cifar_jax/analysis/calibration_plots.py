"""Draw reliability diagrams before and after a temperature."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_jax.errors import counted
from cifar_jax.report.drawing import GREY, arm_style, mean_and_interval, new_figure
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.study_figures import StudyFigure

if TYPE_CHECKING:
    from cifar_jax.analysis.part import Findings

LEAST = 10  # images in a bin, on average over the seeds; fewer are not drawn
MOST_ARMS = 6
_HEIGHT = 2.75  # inches, of a row of panels
_TITLE = "Reliability before and after a temperature"


def _curve(errors: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return confidence, accuracy and its interval, in per cent, of bins with enough images."""
    counts = np.array([of.curve.count for of in errors])
    enough = (counts.mean(axis=0) >= LEAST) & (counts > 0).all(axis=0)
    confidence, accuracy = (
        100 * np.array([getattr(of.curve, name) for of in errors], float)[:, enough]
        for name in ("confidence", "accuracy")
    )
    return confidence.mean(axis=0), *mean_and_interval(accuracy, 0, 100)


def _draw_arm(axes: Axes, records: list[Any], colour: str, marker: str) -> None:
    """Draw one arm: as trained in grey, with temperature in its colour."""
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
    bins = records[0].bins
    share = np.mean([of.after.curve.count for of in records], axis=0)
    centres = (np.arange(bins) + 0.5) * 100 / bins
    axes.bar(centres, 100 * share / share.sum(), 90 / bins, color="#DDDDDD", zorder=0)
    styles = (("before", GREY, "x", "as trained"), ("after", colour, marker, "temperature"))
    for number, (when, of_line, of_mark, words) in enumerate(styles):
        errors = [getattr(record, when) for record in records]
        confidence, accuracy, ends = _curve(errors)
        line = "--" if when == "before" else "-"
        axes.plot(confidence, accuracy, color=of_line, marker=of_mark, linestyle=line, markersize=4)
        if ends is not None:
            axes.fill_between(confidence, *ends, color=of_line, alpha=0.2, linewidth=0)
        error = 100 * np.mean([of.equal_width for of in errors])
        if when == "after":
            words = f"{words} {np.mean([record.temperature for record in records]):.2f}"
        text = f"{words}\n{error:.1f} points"
        axes.text(
            0.04,
            0.96 - 0.17 * number,
            text,
            color=of_line,
            transform=axes.transAxes,
            va="top",
            fontsize=8,
        )
    axes.set(xlim=(0, 100), ylim=(0, 100), xticks=range(0, 101, 25), yticks=range(0, 101, 25))


def draw_reliability(findings: "Findings[Any]", title: str) -> Figure:
    """Draw one panel for each of up to six arms."""
    arms = findings.arms[:MOST_ARMS]
    columns = min(len(arms), 2)
    rows = -(-len(arms) // columns)
    figure = new_figure(0.45 + (_HEIGHT if columns > 1 else 4.2) * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(arms) :]:
        axes.axis("off")
    for axes, arm in zip(grid.flat, arms, strict=False):
        colour, marker = arm_style(findings.study.arms, arm)
        _draw_arm(axes, findings.of(arm), colour, marker)
        if len(findings.study.arms) > 1:
            axes.set_title(short_name(findings.study.label(arm), 34))
    figure.supxlabel("confidence [%]", fontsize="medium")
    figure.supylabel("accuracy [%]", fontsize="medium")
    return figure


def reliability_figure(findings: "Findings[Any]") -> StudyFigure:
    """Return the reliability diagrams of a study."""
    where = dataset_name(findings.study)
    seeds = max(len(findings.of(arm)) for arm in findings.arms)
    left = len(findings.arms) - MOST_ARMS
    caption = (
        f"{where}: accuracy of the test predictions against their confidence, up to "
        f"{counted(seeds, 'seed')} an arm. Dotted: perfect. Below it the network is overconfident. "
        "Numbers are calibration errors with bins of equal width. Grey bars show the share of "
        f"images in each bin, with temperature. Bins with fewer than {LEAST} images are not drawn."
    )
    if seeds > 1:
        caption += " Lines are means over the seeds, bands their 95 % intervals."
    if left > 0:
        caption += f" {counted(left, 'more arm')} are only in the table."
    return StudyFigure(
        "20_calibration",
        _TITLE,
        caption,
        lambda: draw_reliability(findings, f"{_TITLE}: {where}"),
    )
