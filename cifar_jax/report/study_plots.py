"""Draw the figures of a study's curves, times and differences."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar_jax.experiments.published import PUBLISHED_GAIN
from cifar_jax.report.direct_labels import MOST_DIRECT, label_ends, name_lines
from cifar_jax.report.drawing import (
    GREY,
    arm_style,
    drawn_arms,
    histories,
    integer_epochs,
    legend_below,
    mean_line,
    new_figure,
    time_unit,
    within,
)
from cifar_jax.report.estimation_plots import (
    LONGEST_ARM,
    Arm,
    cumming,
    gardner_altman,
    mean_row,
)
from cifar_jax.report.figures import mark_drops, rate_drops
from cifar_jax.report.labels import MOST_NAMED, class_names, short_name
from cifar_jax.report.naming import paired_runs
from cifar_jax.study.collect import Study
from cifar_jax.study.statistics import MANY_SEEDS

MOST_EXTREME = 15  # classes with the largest gains, and losses, if there are too many to name


def common_drops(study: Study) -> list[float]:
    """Return the epochs, less a half, before which the learning rate drops in all arms.

    Empty if the arms differ.
    """
    first, *others = [rate_drops(runs[0].results.history) for *_, runs in drawn_arms(study)]
    return first if all(drops == first for drops in others) else []


def curves(study: Study, quantity: str, title: str) -> Figure:
    """Draw training and validation loss or accuracy of every arm over the epochs."""
    figure = new_figure(3.7, title)
    axes = figure.subplots()
    scale, most = (100, 100.0) if quantity == "accuracy" else (1, math.inf)
    for name, colour, marker, runs in drawn_arms(study):
        for split, word, style in (
            ("train", "training", "--"),
            ("val", "validation", "-"),
        ):
            values = scale * histories(runs, f"{split}_{quantity}")
            epochs = np.arange(1, values.shape[1] + 1)
            label = f"{name}, {word}"
            marks = {"linestyle": style, "marker": marker}
            mean_line(axes, epochs, values, colour, most, label=label, **marks)
    mark_drops(axes, common_drops(study))
    integer_epochs(axes)
    axes.set_ylabel("cross-entropy [nats]" if quantity == "loss" else "accuracy [%]")
    within(axes, 0, most)
    _name_curves(figure, axes, drawn_arms(study))
    return figure


def _name_curves(figure: Figure, axes: Axes, arms: Sequence[tuple[str, str, str, Any]]) -> None:
    """Name the lines of up to three arms at their ends, of more in a legend."""
    lines = {str(line.get_label()): line for line in axes.lines}
    if len(arms) > MOST_DIRECT:
        legend_below(figure, axes, 2)
        return

    def end(name: str, split: str) -> float:
        return float(np.asarray(lines[f"{name}, {split}"].get_ydata(), np.float64)[-1])

    if len(arms) == 1:
        ((name, colour, _, _),) = arms
        label_ends(
            axes, [(split, end(name, split), colour) for split in ("training", "validation")]
        )
        return
    label_ends(axes, [(name, end(name, "validation"), colour) for name, colour, _, _ in arms])
    styles = [
        Line2D([], [], color=GREY, linestyle="-", label="validation"),
        Line2D([], [], color=GREY, linestyle="--", label="training"),
    ]
    figure.legend(handles=styles, loc="outside lower center", ncols=2)


def times(study: Study, title: str) -> Figure:
    """Draw the seconds of each epoch, and the time from the start, of every arm."""
    figure = new_figure(4.8, title)
    above, below = figure.subplots(2, 1, sharex=True)
    arms = drawn_arms(study)
    totals = {name: histories(runs, "seconds").cumsum(axis=1) for name, _, _, runs in arms}
    unit, divisor = time_unit(max(float(total.max()) for total in totals.values()))
    for name, colour, marker, runs in arms:
        seconds = histories(runs, "seconds")
        epochs = np.arange(1, seconds.shape[1] + 1)
        mean_line(above, epochs, seconds, colour, label=name, marker=marker)
        mean_line(below, epochs, totals[name] / divisor, colour, label=name, marker=marker)
    above.set_ylabel("time of an epoch [s]")
    below.set_ylabel(f"time from the start [{unit}]")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
    integer_epochs(below)
    if not (name_lines(above) and name_lines(below)):
        legend_below(figure, above, 3)
    return figure


def _named_rows(paired: dict[str, Any], classes: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and statistics of the classes to show, the largest gain first.

    Of more than 40 classes: the 15 with the largest gains and the 15 with the largest losses.
    """
    names = class_names(classes)
    found = [(names[i], paired.get(f"class:{name}")) for i, name in enumerate(classes)]
    rows = [(name, row) for name, row in found if row]
    rows.sort(key=lambda pair: -pair[1]["mean_difference"])
    if len(rows) > MOST_NAMED:
        return [*rows[:MOST_EXTREME], *rows[-MOST_EXTREME:]]
    return rows


def differences(
    study: Study, paired: dict[str, Any], classes: Sequence[str], published: bool, title: str
) -> Figure:
    """Draw a Gardner-Altman plot of the two compared arms, and the difference of each class."""
    rows, pairs = _named_rows(paired, classes), paired_runs(study)
    height = 3.0
    figure = new_figure(0.9 + height + 0.24 * len(rows), title)
    grid = figure.add_gridspec(
        2 if rows else 1,
        2,
        height_ratios=[height, *([0.24 * len(rows)] if rows else [])],
        width_ratios=(3, 2),
    )
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    arms = []
    for arm, runs in zip(paired["arms"], zip(*pairs, strict=True), strict=True):
        values = [run.tested.test_accuracy for run in runs]
        row = {"values": values, "mean": float(np.mean(values))}
        arms.append(Arm(study.label(arm), arm_style(study.arms, arm), row))
    both = arms[0], arms[1]._replace(difference=paired["test_accuracy"])
    seeds = [first.seed for first, _ in pairs]
    reference = PUBLISHED_GAIN if published else None
    gardner_altman(left, right, both, seeds, reference=reference)
    left.set_ylabel("test accuracy [%]")
    right.set_ylabel("difference [points]")
    if rows:
        _class_rows(figure.add_subplot(grid[1, :]), paired, classes, rows)
    return figure


def _class_rows(
    axes: Axes,
    paired: dict[str, Any],
    classes: Sequence[str],
    rows: Sequence[tuple[str, dict[str, Any]]],
) -> None:
    """Draw the difference of each class with its interval."""
    for y, (_, row) in enumerate(rows):
        mean_row(axes, y, row["mean_difference"], row["ci_t"])
    axes.axvline(0, color=GREY, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    omitted = sum(bool(paired.get(f"class:{name}")) for name in classes) - len(rows)
    if omitted:
        axes.axhline(MOST_EXTREME - 0.5, color=GREY, linestyle=":", linewidth=1)
        axes.set_ylabel(f"{omitted:,} classes in between", fontsize=8.5)
    axes.set_xlabel("difference of test accuracy [points]")
    within(axes, -100, 100, "x")


def all_arms(
    study: Study, per_arm: dict[str, Any], others: Sequence[dict[str, Any]], title: str
) -> Figure:
    """Draw a Cumming plot of the test accuracy of every arm.

    Args:
        study: with its arms.
        per_arm, others: `per_arm` and `against_first` of the summary.
        title: of the figure.
    """
    gains = {row["arms"][1]: row for row in others}
    control = others[0]["arms"][0]
    names = [control, *(arm for arm in study.arms if study.runs[arm] and arm != control)]
    arms = [
        Arm(
            study.label(arm),
            arm_style(study.arms, arm),
            per_arm[arm]["test_accuracy"],
            gains.get(arm),
        )
        for arm in names
    ]
    figure = new_figure(1.0 + 0.42 * len(arms), title)
    against = f"difference [points]\nto {short_name(study.label(control))}"
    cumming(figure, arms, 100, ("test accuracy [%]", against))
    return figure


def reliability(study: Study, per_arm: dict[str, Any], title: str) -> Figure:
    """Draw accuracy against confidence in bins, and the share of predictions in each bin."""
    figure = new_figure(5.2, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="perfect")
    arms = {study.label(arm): arm for arm in study.arms}
    drawn = drawn_arms(study)
    for number, (name, colour, marker, _) in enumerate(drawn):
        calibration = per_arm[arms[name]]["calibration"]
        bins = [b for b in calibration["bins"] if b["count"]]
        size = 100 / len(calibration["bins"])  # bins are equally wide, from 0 to 100 %
        centres = (np.flatnonzero([b["count"] for b in calibration["bins"]]) + 0.5) * size
        confidence = np.array([b["confidence"] for b in bins], float)
        accuracy = np.array([b["accuracy"] for b in bins], float)
        count = np.array([b["count"] for b in bins], float)
        error = f"expected calibration error {100 * calibration['ece']:.1f} points"
        label = f"{short_name(name, LONGEST_ARM)}: {error}"
        above.plot(100 * confidence, 100 * accuracy, color=colour, marker=marker, label=label)
        width = 0.8 * size / len(drawn)
        offset = width * (number - (len(drawn) - 1) / 2)
        below.bar(centres + offset, 100 * count / count.sum(), width, color=colour)
    above.set_ylabel("accuracy [%]")
    above.set_xlim(0, 100)
    above.set_ylim(0, 100)
    below.set_xlabel("confidence: greatest probability [%]")
    below.set_ylabel("share of\npredictions [%]")
    legend_below(figure, above, 1)
    return figure


def accuracy_over_time(study: Study, title: str) -> Figure:
    """Draw validation accuracy against training time: means, and each seed as a thin line.

    More than `MANY_SEEDS` seeds of an arm have no lines.
    """
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    arms = drawn_arms(study)
    longest = max(float(histories(runs, "seconds").sum(axis=1).max()) for *_, runs in arms)
    unit, divisor = time_unit(longest)
    for name, colour, marker, runs in arms:
        elapsed = histories(runs, "seconds").cumsum(axis=1) / divisor
        accuracy = 100 * histories(runs, "val_accuracy")
        if 1 < len(runs) <= MANY_SEEDS:
            axes.plot(elapsed.T, accuracy.T, color=colour, alpha=0.3, linewidth=0.7)
        axes.plot(
            elapsed.mean(axis=0),
            accuracy.mean(axis=0),
            color=colour,
            marker=marker,
            markersize=3.5,
            label=name,
        )
    axes.set_xlabel(f"training time, without compilation [{unit}]")
    axes.set_ylabel("validation accuracy [%]")
    axes.set_xlim(left=0)
    within(axes, 0, 100)
    if not name_lines(axes):
        legend_below(figure, axes, 3)
    return figure
