"""Draw confidences on unknown images, and how well scores separate them from known ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_jax.report.drawing import (
    GREY,
    PALETTE,
    arm_style,
    legend_below,
    mean_line,
    new_figure,
)
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.study_figures import StudyFigure

if TYPE_CHECKING:
    from cifar_jax.analysis.part import Findings

MOST_ARMS = 6
MOST_SETS = 5
COLOURS = (*PALETTE[2:6], PALETTE[1])  # The first two colours are those of most arms.
_CONFIDENCES = "How confident on pictures of none of the classes"
_DETECTION = "Known against unknown images"


def _draw_confidences(axes: Axes, records: Sequence[Any], names: Sequence[str]) -> None:
    steps = len(records[0].test.above)
    x = 100 * np.arange(steps) / steps

    def line(found: Sequence[Any], colour: str, label: str, **style: Any) -> None:
        values = 100 * np.array([of.above for of in found])
        if len(values):
            mean_line(axes, x, values, colour, 100, label=label, **style)

    line([of.test for of in records], "black", "test images")
    wrong = [of.wrong for of in records if of.wrong is not None]
    line(wrong, GREY, "wrong test predictions", linestyle=":")
    for name, colour in zip(names, COLOURS, strict=False):
        sets = [of.confidence for record in records for of in record.sets if of.name == name]
        line(sets, colour, f"unknown: {name}", linestyle="--")
    axes.axvline(90, color=GREY, linewidth=0.8)
    axes.set(xlim=(0, 100), ylim=(0, 101), xticks=range(0, 101, 25), yticks=range(0, 101, 25))


def draw_confidences(findings: "Findings[Any]", names: Sequence[str], title: str) -> Figure:
    """Draw one panel for each of up to six arms, a line for each of up to five sets."""
    arms = findings.arms[:MOST_ARMS]
    columns = min(len(arms), 2)
    rows = -(-len(arms) // columns)
    figure = new_figure(0.95 + (2.5 if columns > 1 else 3.4) * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(arms) :]:
        axes.axis("off")
    for axes, arm in zip(grid.flat, arms, strict=False):
        _draw_confidences(axes, findings.of(arm), names)
        if len(findings.study.arms) > 1:
            axes.set_title(short_name(findings.study.label(arm), 34))
    for axes in grid[-1]:
        axes.set_xlabel("confidence [%]")
    figure.supylabel("share above it [%]", fontsize="medium")
    legend_below(figure, grid.flat[0], 3)
    return figure


def draw_detection(findings: "Findings[Any]", names: Sequence[str], title: str) -> Figure:
    """Draw the AUROC of every score: a panel for each of up to five sets, a mark for each arm."""
    from cifar_jax.analysis.unknown import SCORES

    rows = {row.quantity.key: row for row in findings.compared}
    names, arms = names[:MOST_SETS], findings.arms
    figure = new_figure(0.75 + (0.45 + 0.27 * len(SCORES)) * len(names), title)
    grid = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    for axes, name in zip(grid, names, strict=True):
        for number, arm in enumerate(arms):
            colour, marker = arm_style(findings.study.arms, arm)
            offset = 0.5 * ((number + 0.5) / len(arms) - 0.5)
            for at, key in enumerate(SCORES):
                row = rows.get(f"{name} {key} auroc")
                found = row.per_arm.get(arm) if row else None
                if found is None:
                    continue
                label = findings.study.label(arm) if at == 0 else None
                mean = 100 * found["mean"]
                axes.plot(
                    mean, at + offset, color=colour, marker=marker, linestyle="none", label=label
                )
                if found["ci_t"] is not None:
                    ends = [100 * end for end in found["ci_t"]]
                    axes.plot(ends, [at + offset] * 2, color=colour, linewidth=1.4)
        axes.axvline(50, color=GREY, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(SCORES)), list(SCORES.values()))
        axes.set_ylim(len(SCORES) - 0.5, -0.5)
        axes.set_title(short_name(name, 60))
        axes.grid(axis="y", visible=False)
    grid[-1].set_xlabel("AUROC [%] (dotted: chance)")
    if len(arms) > 1:
        legend_below(figure, grid[0], 3)
    return figure


def unknown_figures(findings: "Findings[Any]", names: Sequence[str]) -> tuple[StudyFigure, ...]:
    """Return the figures of the section."""
    where = dataset_name(findings.study)
    several = max(len(findings.of(arm)) for arm in findings.arms) > 1
    band = " Lines are means over the seeds, bands their 95 % intervals." if several else ""
    whisker = " Marks are means over the seeds, lines their 95 % intervals." if several else ""
    more = ""
    if len(names) > MOST_SETS or len(findings.arms) > MOST_ARMS:
        more = f" At most {MOST_SETS} sets and {MOST_ARMS} arms are drawn; the tables have all."
    return (
        StudyFigure(
            "21_unknown_confidence",
            _CONFIDENCES,
            f"{where}: share of images with more than a confidence, for known and unknown images. "
            "The further the dashed lines are below the black one, the better the network notices "
            f"the unknown. The grey line marks 90 %.{band}{more}",
            lambda: draw_confidences(findings, names, f"{_CONFIDENCES}: {where}"),
        ),
        StudyFigure(
            "22_unknown_detection",
            _DETECTION,
            f"{where}: how well five scores separate test images from unknown ones. AUROC is the "
            "chance that the score ranks a test image above an unknown one: 100 % is perfect."
            f"{whisker}{more}",
            lambda: draw_detection(findings, names, f"{_DETECTION}: {where}"),
        ),
    )
