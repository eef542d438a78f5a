"""Draw accuracy on corrupted images, and the images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_jax.analysis.common_corruptions.table import KINDS, NAME, NAMES, SEVERITIES, corrupt
from cifar_jax.analysis.numbers import Compared
from cifar_jax.report.drawing import (
    GREY,
    PIXELS,
    arm_style,
    legend_below,
    mean_line,
    new_figure,
    within,
)
from cifar_jax.report.estimation_plots import seeds_and_mean
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.study_figures import StudyFigure, missing_images

if TYPE_CHECKING:
    from cifar_jax.analysis.part import Findings

MOST_ARMS = 6
_SPREAD = 0.5  # of a row, over the arms


def _offsets(arms: Sequence[str]) -> dict[str, float]:
    """Return the distance of each arm's mark from the middle of a row."""
    middle = (len(arms) - 1) / 2
    return {arm: _SPREAD * (i - middle) / len(arms) for i, arm in enumerate(arms)}


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def draw_kinds(findings: "Findings[Any]", rows: Sequence[Compared], title: str) -> Figure:
    """Draw the accuracy of each kind for each arm, and beside it the difference."""
    study, arms = findings.study, findings.arms[:MOST_ARMS]
    others = [arm for arm in arms if arm in rows[0].paired]
    figure = new_figure(1.1 + 0.3 * len(rows), title)
    panels = figure.subplots(1, 2 if others else 1, sharey=True, squeeze=False)[0]
    place = _offsets(arms)
    for arm in arms:
        colour, marker = arm_style(study.arms, arm)
        label: str | None = short_name(study.label(arm), 34)
        for y, row in enumerate(rows):
            found, at = row.per_arm[arm], y + place[arm]
            ends = found["ci_t"]
            if ends is not None:
                panels[0].plot([100 * end for end in ends], [at, at], color=colour, linewidth=1.4)
            panels[0].plot([100 * found["mean"]], [at], marker, color=colour, label=label)
            label = None
    panels[0].set_xlabel("accuracy [%]")
    _rows(panels[0], [row.quantity.label for row in rows])
    within(panels[0], 0, 100, "x")
    if others:
        place = _offsets(others)
        for arm in others:
            style = arm_style(study.arms, arm)
            for y, row in enumerate(rows):
                found = row.paired[arm]
                shown = found["differences"], found["mean_difference"], found["ci_t"]
                seeds_and_mean(panels[1], y + place[arm] + 0.1, shown, style)
        panels[1].axvline(0, color=GREY, linewidth=1)
        panels[1].set_xlabel(
            f"difference to {short_name(study.label(rows[0].control), 22)} [points]"
        )
        panels[1].grid(axis="y", visible=False)
    if len(arms) > 1:
        legend_below(figure, panels[0], 3)
    return figure


def draw_severities(findings: "Findings[Any]", title: str) -> Figure:
    """Draw accuracy against severity, a small panel for each kind. Severity 0: no corruption."""
    arms = findings.arms[:MOST_ARMS]
    figure = new_figure(6.8, title)
    grid = figure.subplots(5, 3, sharex=True, sharey=True)
    x = np.arange(len(SEVERITIES) + 1)
    for arm in arms:
        colour, marker = arm_style(findings.study.arms, arm)
        clean = np.array([[of.clean] for of in findings.of(arm)])
        accuracy = np.array([of.accuracy for of in findings.of(arm)])
        for number, axes in enumerate(grid.flat):
            values = 100 * np.concatenate([clean, accuracy[:, number]], axis=1)
            label = short_name(findings.study.label(arm), 34)
            mean_line(axes, x, values, colour, 100, label=label, marker=marker)
    for kind, axes in zip(KINDS, grid.flat, strict=True):
        axes.set_title(kind.name, fontsize=9)
        axes.set_ylim(0, 100)
        axes.set_xticks(x)
    grid[-1, 1].set_xlabel("severity")
    figure.supylabel("accuracy [%]", fontsize="medium")
    if len(arms) > 1:
        legend_below(figure, grid[0, 0], 3)
    return figure


def draw_pictures(image: np.ndarray, index: int, title: str) -> Figure:
    """Draw one image, uint8 (H, W, 3), with every corruption. `index` is its index."""
    height, width, _ = image.shape
    gap = max(1, height // 16)
    cell = height + gap, width + gap
    # One picture of all cells: 90 axes take seconds to draw.
    shape = (len(KINDS) * cell[0] - gap, (len(SEVERITIES) + 1) * cell[1] - gap, 3)
    mosaic = np.full(shape, 255, np.uint8)
    for i, kind in enumerate(KINDS):
        made = [corrupt(image[None], kind, severity, [index])[0] for severity in SEVERITIES]
        for j, pixels in enumerate([image, *made]):
            top, left = i * cell[0], j * cell[1]
            mosaic[top : top + height, left : left + width] = pixels
    figure = new_figure(8.6, title)
    axes = figure.subplots()
    axes.imshow(mosaic, **PIXELS)
    axes.set_yticks([i * cell[0] + height / 2 for i in range(len(KINDS))], NAMES)
    columns = [j * cell[1] + width / 2 for j in range(len(SEVERITIES) + 1)]
    axes.set_xticks(columns, ["image", *map(str, SEVERITIES)])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def corruption_figures(findings: "Findings[Any]", rows: Sequence[Compared]) -> list[StudyFigure]:
    """Return the figures of a study. `rows` has the numbers of each kind."""
    study, images = findings.study, findings.images
    where, several = dataset_name(study), any(len(findings.of(arm)) > 1 for arm in findings.arms)
    seeds = " Whiskers are 95 % intervals over the seeds." if several else ""
    bands = " Lines are means over the seeds, bands their 95 % intervals." if several else ""
    left = len(findings.arms) - MOST_ARMS
    more = f" {left} more arms are only in the table." if left > 0 else ""
    dots = ""
    if rows[0].paired:
        dots = (
            " Right: the difference with the same seed, a mark a seed, and their mean with its "
            "interval, not adjusted for the number of kinds."
        )

    def entry(stem: str, title: str, caption: str, draw: Any, reason: str = "") -> StudyFigure:
        """Return one figure. With a `reason`, it is missing, and the page says why."""
        build = None if reason else lambda: draw(f"{title}: {where}")
        return StudyFigure(stem, title, f"{where}: {caption}", build, reason)

    return [
        entry(
            "24_corruption_kinds",
            "Accuracy by kind of corruption",
            f"mean over five severities. The images are {NAME}.{seeds}{dots}{more}",
            lambda title: draw_kinds(findings, rows, title),
        ),
        entry(
            "25_corruption_severities",
            "Accuracy by severity of corruption",
            f"severity 0 is the image without corruption.{bands}{more}",
            lambda title: draw_severities(findings, title),
        ),
        entry(
            "26_corruption_pictures",
            "One test image with every corruption",
            f"the {len(NAMES)} kinds at five severities, {NAME}.",
            lambda title: draw_pictures(images.test_images[0], 0, title),  # type: ignore[union-attr]
            missing_images(study, images),
        ),
    ]
