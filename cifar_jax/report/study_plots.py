"""Draw the figures of a study's curves, times and differences."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_jax.experiments.published import PUBLISHED_GAIN
from cifar_jax.report.drawing import (
    GREY,
    MOST_ROWS,
    PALETTE,
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
from cifar_jax.report.figures import rate_drops
from cifar_jax.report.labels import MOST_NAMED, class_names, short_name
from cifar_jax.report.naming import paired_runs
from cifar_jax.study.collect import Study

LONGEST_ARM = 26  # columns of an arm's name beside an axis
MOST_EXTREME = 15  # classes with the largest gains, and losses, if there are too many to name


def common_drops(study: Study) -> list[float]:
    """Return the epochs, less a half, before which the learning rate drops in all arms.

    Empty if the arms differ.
    """
    first, *others = [rate_drops(runs[0].results.history) for *_, runs in drawn_arms(study)]
    return first if all(drops == first for drops in others) else []


def _drop_lines(axes: Axes, study: Study) -> None:
    """Draw dashed lines where the learning rate drops."""
    label: str | None = "learning rate drops"
    for drop in common_drops(study):
        axes.axvline(drop, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=label)
        label = None


def curves(study: Study, quantity: str, title: str) -> Figure:
    """Draw training and validation loss or accuracy of every arm over the epochs."""
    figure = new_figure(3.7, title)
    axes = figure.subplots()
    scale, most = (100, 100.0) if quantity == "accuracy" else (1, math.inf)
    for name, colour, _, runs in drawn_arms(study):
        for split, word, style in (
            ("train", "training", "--"),
            ("val", "validation", "-"),
        ):
            values = scale * histories(runs, f"{split}_{quantity}")
            epochs = np.arange(1, values.shape[1] + 1)
            label = f"{name}, {word}"
            mean_line(axes, epochs, values, colour, most, linestyle=style, label=label)
    _drop_lines(axes, study)
    integer_epochs(axes)
    axes.set_ylabel("cross-entropy [nats]" if quantity == "loss" else "accuracy [%]")
    within(axes, 0, most)
    entries = len(axes.get_legend_handles_labels()[1])
    # A column for each arm; of more than three, as many as fit.
    legend_below(figure, axes, 2 if len(drawn_arms(study)) > 3 else min(3, -(-entries // 2)))
    return figure


def times(study: Study, title: str) -> Figure:
    """Draw the seconds of each epoch, and the time from the start, of every arm."""
    figure = new_figure(4.8, title)
    above, below = figure.subplots(2, 1, sharex=True)
    arms = drawn_arms(study)
    totals = {name: histories(runs, "seconds").cumsum(axis=1) for name, _, _, runs in arms}
    unit, divisor = time_unit(max(float(total.max()) for total in totals.values()))
    for name, colour, _, runs in arms:
        seconds = histories(runs, "seconds")
        epochs = np.arange(1, seconds.shape[1] + 1)
        mean_line(above, epochs, seconds, colour, label=name)
        mean_line(below, epochs, totals[name] / divisor, colour)
    above.set_ylabel("time of an epoch [s]")
    below.set_ylabel(f"time from the start [{unit}]")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
    integer_epochs(below)
    legend_below(figure, above, min(len(arms), 3))
    return figure


def _interval_row(
    axes: Axes, y: float, mean: float, interval: Sequence[float] | None, scale: float = 100
) -> None:
    """Draw a mean and its interval; fractions in per cent or points."""
    if interval:
        ends = [scale * end for end in interval]
        axes.plot(ends, [y, y], color="black", linewidth=2, solid_capstyle="butt")
    axes.plot([scale * mean], [y], "D", color="black", markersize=6)


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
    """Draw the difference of test accuracy of each seed pair, its mean, and that of each class."""
    overall, rows = paired["test_accuracy"], _named_rows(paired, classes)
    shown = min(len(overall["differences"]) + 1.0, MOST_ROWS)
    heights = [shown, *([len(rows)] if rows else [])]
    figure = new_figure(1.5 + 0.24 * sum(heights), title)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    _seed_rows(panels[0, 0], overall, [first.seed for first, _ in paired_runs(study)])
    if published:
        panels[0, 0].axvline(PUBLISHED_GAIN, color=PALETTE[0], linestyle=":", linewidth=1.6)
        panels[0, 0].annotate(
            "published",
            (PUBLISHED_GAIN, 1),
            xycoords=panels[0, 0].get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=PALETTE[0],
            fontsize=9,
        )
    for panel in panels[:, 0]:
        panel.axvline(0, color=GREY, linewidth=1)
        panel.grid(axis="y", visible=False)
    if rows:
        below = panels[1, 0]
        for number, (_, row) in enumerate(rows):
            _row(below, number, row)
        below.set_yticks(range(len(rows)), [name for name, _ in rows])
        below.set_ylim(len(rows) - 0.4, -0.6)
        omitted = sum(bool(paired.get(f"class:{name}")) for name in classes) - len(rows)
        if omitted:
            below.axhline(MOST_EXTREME - 0.5, color=GREY, linestyle=":", linewidth=1)
            below.set_ylabel(f"{omitted:,} classes in between", fontsize=8.5)
    panels[-1, 0].set_xlabel("difference of test accuracy [points]")
    within(panels[-1, 0], -100, 100, "x")
    return figure


def _seed_rows(axes: Axes, overall: dict[str, Any], seeds: Sequence[int]) -> None:
    """Draw a dot for each seed pair, and their mean below. Up to 40 seeds are named."""
    y = np.arange(len(seeds))
    few = len(seeds) <= MOST_ROWS
    size = 6 if few else 3
    axes.plot(100 * np.array(overall["differences"]), y, "o", color=PALETTE[1], markersize=size)
    _row(axes, len(seeds), overall)
    named = [*y, len(seeds)] if few else [len(seeds)]
    words = [f"seed {seed}" for seed in seeds] if few else []
    axes.set_yticks(named, [*words, "mean"])
    axes.set_ylim(len(seeds) + 0.6, -0.6)
    if not few:
        axes.set_ylabel(f"{len(seeds):,} seeds", fontsize=8.5)


def _row(axes: Axes, y: float, statistic: dict[str, Any]) -> None:
    _interval_row(axes, y, statistic["mean_difference"], statistic["ci_t"])


def all_arms(
    study: Study, per_arm: dict[str, Any], others: Sequence[dict[str, Any]], title: str
) -> Figure:
    """Draw the test accuracy of every arm, and its difference to the first arm.

    Args:
        study: with its arms.
        per_arm, others: `per_arm` and `against_first` of the summary.
        title: of the figure.
    """
    arms = [arm for arm in study.arms if study.runs[arm]]
    figure = new_figure(1.9 + 0.27 * (len(arms) + len(others)), title)
    above, below = figure.subplots(2, 1, height_ratios=(len(arms), len(others)))
    for y, arm in enumerate(arms):
        row = per_arm[arm]["test_accuracy"]
        style = arm_style(study.arms, arm)
        seeds_and_mean(above, y, (row["values"], row["mean"], row["ci_t"]), style)
    for y, row in enumerate(others):
        style = arm_style(study.arms, row["arms"][1])
        found = row["differences"], row["mean_difference"], row["ci_t"]
        seeds_and_mean(below, y, found, style)
    below.axvline(0, color=GREY, linewidth=1)
    within(above, 0, 100, "x")
    within(below, -100, 100, "x")
    for axes, names in ((above, arms), (below, [row["arms"][1] for row in others])):
        axes.set_yticks(
            range(len(names)), [short_name(study.label(name), LONGEST_ARM) for name in names]
        )
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
    above.set_xlabel("test accuracy [%]")
    control = short_name(study.label(others[0]["arms"][0]), LONGEST_ARM)
    below.set_xlabel(f"difference to {control} [points]")
    return figure


def seeds_and_mean(
    axes: Axes,
    y: float,
    found: tuple[Sequence[float], float, Sequence[float] | None],
    style: tuple[str, str],
    scale: float = 100,
) -> None:
    """Draw a row: a mark a seed, and below them the mean with its interval.

    Args:
        y: of the row.
        found: values of the seeds, their mean and its interval.
        style: colour and marker of the seeds.
        scale: factor of all values; 100 for fractions.
    """
    values, mean, interval = found
    colour, marker = style
    at = np.full(len(values), y - 0.25)
    axes.plot(scale * np.array(values), at, marker, color=colour, markersize=4, alpha=0.8)
    _interval_row(axes, y, mean, interval, scale)


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
    """Draw validation accuracy against training time: means, and each seed as a thin line."""
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    arms = drawn_arms(study)
    longest = max(float(histories(runs, "seconds").sum(axis=1).max()) for *_, runs in arms)
    unit, divisor = time_unit(longest)
    for name, colour, marker, runs in arms:
        elapsed = histories(runs, "seconds").cumsum(axis=1) / divisor
        accuracy = 100 * histories(runs, "val_accuracy")
        if len(runs) > 1:
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
    legend_below(figure, axes, min(len(arms), 3))
    return figure
