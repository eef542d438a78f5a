"""The figures of a study, drawn from what the runs left. Nothing is trained here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Normalize, PowerNorm
from matplotlib.figure import Figure

from cifar_jax.data.dataset import Dataset
from cifar_jax.data.splits import train_val_split
from cifar_jax.report.drawing import (
    GREY,
    MOST_NAMED,
    PALETTE,
    arm_style,
    drawn_arms,
    histories,
    integer_epochs,
    legend_below,
    mean_and_half_width,
    mean_line,
    new_figure,
    short_name,
    time_unit,
)
from cifar_jax.report.figures import rate_drops
from cifar_jax.report.naming import arm_name, paired_runs
from cifar_jax.study.claims import PUBLISHED_GAIN
from cifar_jax.study.collect import Run, Study


def _confusion(runs: Sequence[Run]) -> np.ndarray:
    """Per cent of each true class (rows), mean over the seeds; NaN for absent classes."""
    counts = np.array([run.results["confusion_matrix"] for run in runs], float)
    totals = counts.sum(axis=2, keepdims=True)
    share = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    return share.mean(axis=0)


def _per_class(runs: Sequence[Run], classes: Sequence[str]) -> np.ndarray:
    """Test accuracy in per cent, float64 (seeds, classes); NaN for absent classes."""
    rows = [[run.results["per_class_accuracy"][name] for name in classes] for run in runs]
    return 100 * np.array(rows, float)


def _drop_lines(axes: Axes, run: Run) -> None:
    """Dashed lines where the learning rate drops."""
    label: str | None = "learning rate drops"
    for drop in rate_drops(run.results["history"]):
        axes.axvline(drop, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=label)
        label = None


def samples(images: Dataset, title: str) -> Figure:
    """The first training image of each class."""
    classes = images.classes[:MOST_NAMED]
    columns = 5
    rows = -(-len(classes) // columns)
    figure = new_figure(0.5 + 1.2 * rows, title)
    labels = np.asarray(images.train_labels)
    for label, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        found = np.flatnonzero(labels == label)
        if label < len(classes) and len(found):
            axes.imshow(images.train_images[found[0]], interpolation="nearest")
            axes.set_title(short_name(classes[label]), loc="center", fontsize=8.5)
    return figure


def class_counts(images: Dataset, data: dict[str, Any], title: str) -> Figure:
    """Images of each class in the training, validation and test set.

    Args:
        data: the config's data table: val_examples, split_seed and, perhaps, train_examples.
    """
    labels = np.asarray(images.train_labels)
    train, val = train_val_split(len(labels), data["val_examples"], data["split_seed"])
    train = train[: data.get("train_examples")]
    n = len(images.classes)
    sets = (
        ("training", labels[train]),
        ("validation", labels[val]),
        ("test", np.asarray(images.test_labels)),
    )
    figure = new_figure(3.4, title)
    axes = figure.subplots()
    for number, ((name, which), hatch) in enumerate(zip(sets, ("", "///", "..."), strict=True)):
        axes.bar(
            np.arange(n) + 0.27 * (number - 1),
            np.bincount(which, minlength=n),
            0.27,
            color=("#0072B2", "#E69F00", "#009E73")[number],
            edgecolor="white",
            linewidth=0.3,
            hatch=hatch,
            label=f"{name} ({len(which):,})",
        )
    _class_ticks(axes, images.classes)
    axes.set_ylabel("images")
    axes.grid(axis="x", visible=False)
    legend_below(figure, axes, 3)
    return figure


def _class_ticks(axes: Axes, classes: Sequence[str]) -> None:
    if len(classes) > MOST_NAMED:
        axes.set_xlabel("class")
        return
    axes.set_xticks(range(len(classes)), [short_name(c) for c in classes], rotation=45, ha="right")


def curves(study: Study, quantity: str, title: str) -> Figure:
    """Training and validation loss or accuracy of every arm over the epochs."""
    figure = new_figure(3.7, title)
    axes = figure.subplots()
    scale = 100 if quantity == "accuracy" else 1
    for name, colour, _, runs in drawn_arms(study):
        for split, word, style in (
            ("train", "training", "--"),
            ("val", "validation", "-"),
        ):
            values = scale * histories(runs, f"{split}_{quantity}")
            epochs = np.arange(1, values.shape[1] + 1)
            mean_line(axes, epochs, values, colour, linestyle=style, label=f"{name}, {word}")
    _drop_lines(axes, drawn_arms(study)[0][3][0])
    integer_epochs(axes)
    axes.set_ylabel("cross-entropy [nats]" if quantity == "loss" else "accuracy [%]")
    entries = len(axes.get_legend_handles_labels()[1])
    # A column for each arm; of more than three, as many as fit.
    legend_below(figure, axes, 2 if len(drawn_arms(study)) > 3 else min(3, -(-entries // 2)))
    return figure


def _matrix(
    figure: Figure,
    axes: Axes,
    values: np.ndarray,
    classes: Sequence[str],
    label: str,
    colours: str,
    norm: Normalize,
) -> None:
    """Per cents, rows true and columns predicted classes, as colours; as numbers where few."""
    n = len(classes)
    mesh = axes.pcolormesh(values, cmap=colours, norm=norm)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(mesh, ax=axes, label=label, shrink=0.85).outline.set_visible(False)
    if n <= MOST_NAMED:
        names = [short_name(c) for c in classes]
        axes.set_xticks(np.arange(n) + 0.5, names, rotation=45, ha="right")
        axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if n > 12:
        return
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = mesh.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text = f"{value:+.1f}" if isinstance(norm, CenteredNorm) else f"{value:.1f}"
        axes.text(
            column + 0.5,
            row + 0.5,
            "0" if text.strip("+-") == "0.0" else text,
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=6.5,
        )


def confusions(study: Study, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix of every arm on the test set, one under the other."""
    arms = drawn_arms(study)
    figure = new_figure(0.4 + 4.4 * len(arms), title)
    for axes, (name, _, _, runs) in zip(
        figure.subplots(len(arms), 1, squeeze=False).flat, arms, strict=True
    ):
        share = "share of the true class [%]"
        norm = PowerNorm(0.5, 0, 100)  # shows confusions of a few per cent beside the diagonal
        _matrix(figure, axes, _confusion(runs), classes, share, "Blues", norm)
        axes.set_title(name, loc="center")
    return figure


def per_class(study: Study, classes: Sequence[str], title: str) -> Figure:
    """Test accuracy of each class, the arms side by side."""
    arms = drawn_arms(study)
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    width = 0.8 / len(arms)
    for number, (name, colour, _, runs) in enumerate(arms):
        values = _per_class(runs, classes)
        mean, half = mean_and_half_width(values)
        x = np.arange(len(classes)) + width * (number - (len(arms) - 1) / 2)
        axes.bar(x, mean, width, color=colour, edgecolor="white", linewidth=0.4, label=name)
        if half is not None:
            axes.errorbar(x, mean, yerr=half, fmt="none", ecolor="black", elinewidth=1, capsize=1.5)
    _class_ticks(axes, classes)
    axes.set_ylabel("test accuracy [%]")
    axes.set_ylim(0, 100)
    axes.grid(axis="x", visible=False)
    legend_below(figure, axes, min(len(arms), 3))
    return figure


def confusion_difference(study: Study, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix of the second arm minus that of the first, over their common seeds."""
    first, second = zip(*paired_runs(study), strict=True)
    difference = _confusion(second) - _confusion(first)
    limit = max(float(np.nanmax(np.abs(difference))), 1e-9)
    figure = new_figure(4.8, title)
    axes = figure.subplots()
    label = "difference [points of the true class]"
    _matrix(figure, axes, difference, classes, label, "PuOr_r", CenteredNorm(0, limit))
    return figure


def rescued(study: Study) -> tuple[np.ndarray, int]:
    """Test images that the second arm gets right and the first wrong, with the first common seed.

    Returns:
        Their rows, int64 (N,), those first in which it is so with most seeds; and how many there
        are the other way round.
    """
    runs = paired_runs(study)
    right = np.array([[run.predicted == run.label for run in both] for both in runs])
    only_second = right[:, 1] & ~right[:, 0]
    only_first = right[:, 0] & ~right[:, 1]
    rows = np.flatnonzero(only_second[0])
    order = np.argsort(-only_second.sum(axis=0)[rows], kind="stable")
    return rows[order], int(only_first[0].sum())


def rescued_images(study: Study, images: Dataset, title: str) -> Figure:
    """Fifteen of the `rescued` images, at most three a class: true label and predictions."""
    first, second = paired_runs(study)[0]
    rows, _ = rescued(study)
    taken: list[int] = []
    for most in (1, 2, 3):
        for row in rows:
            same = sum(first.label[t] == first.label[row] for t in taken)
            if row not in taken and same < most and len(taken) < 15:
                taken.append(int(row))
    lines = max(1, -(-len(taken) // 3))
    figure = new_figure(0.5 + 1.1 * lines, title)
    grid = figure.subplots(lines, 6, squeeze=False, width_ratios=[1, 0.75] * 3)
    for axes in grid.flat:
        axes.axis("off")
    names = [short_name(name) for name in images.classes]
    for (picture, text), row in zip(grid.reshape(-1, 2), taken, strict=False):
        picture.imshow(images.test_images[row], interpolation="nearest")
        words = (
            ("true", names[first.label[row]], "black"),
            *(
                (arm_name(run.arm), names[run.predicted[row]], arm_style(study.arms, run.arm)[0])
                for run in (first, second)
            ),
        )
        for number, (who, what, colour) in enumerate(words):
            text.text(
                -0.1,
                0.97 - 0.33 * number,
                f"{short_name(who)}\n{what}",
                transform=text.transAxes,
                va="top",
                fontsize=7,
                color=colour,
            )
    if not taken:
        grid[0, 0].text(0, 0.5, "There is none.", transform=grid[0, 0].transAxes)
    return figure


def times(study: Study, title: str) -> Figure:
    """Seconds of each epoch, and the time since the beginning, of every arm."""
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
    below.set_ylabel(f"time since the start [{unit}]")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
    integer_epochs(below)
    legend_below(figure, above, min(len(arms), 3))
    return figure


def _interval_row(axes: Axes, y: float, mean: float, interval: Sequence[float] | None) -> None:
    if interval:
        axes.plot(interval, [y, y], color="black", linewidth=2, solid_capstyle="butt")
    axes.plot([mean], [y], "D", color="black", markersize=6)


def differences(
    study: Study, paired: dict[str, Any], classes: Sequence[str], published: bool, title: str
) -> Figure:
    """Difference of test accuracy of each seed pair, their mean, and the mean of each class."""
    seeds = [first.seed for first, _ in paired_runs(study)]
    named = [name for name in classes if paired.get(f"class:{name}")]
    named = named if len(named) <= MOST_NAMED else []
    heights = [len(seeds) + 1.0, *([len(named)] if named else [])]
    figure = new_figure(1.5 + 0.24 * sum(heights), title)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    overall = paired["test_accuracy"]
    axes = panels[0, 0]
    y = np.arange(len(seeds))
    axes.plot(100 * np.array(overall["differences"]), y, "o", color=PALETTE[1], markersize=6)
    _row(axes, len(seeds), overall)
    axes.set_yticks([*y, len(seeds)], [*(f"seed {s}" for s in seeds), "mean"])
    if published:
        axes.axvline(PUBLISHED_GAIN, color=PALETTE[0], linestyle=":", linewidth=1.6)
        axes.annotate(
            "published",
            (PUBLISHED_GAIN, 1),
            xycoords=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=PALETTE[0],
            fontsize=8.5,
        )
    for panel in panels[:, 0]:
        panel.axvline(0, color=GREY, linewidth=1)
        panel.grid(axis="y", visible=False)
    if named:
        below = panels[1, 0]
        order = sorted(named, key=lambda name: -paired[f"class:{name}"]["mean_difference"])
        for number, name in enumerate(order):
            _row(below, number, paired[f"class:{name}"])
        below.set_yticks(range(len(order)), [short_name(name) for name in order])
    for panel, rows in zip(panels[:, 0], heights, strict=True):
        panel.set_ylim(rows - 0.4, -0.6)
    panels[-1, 0].set_xlabel("difference of test accuracy [points]")
    return figure


def _row(axes: Axes, y: float, statistic: dict[str, Any]) -> None:
    interval = statistic["ci_t"]
    _interval_row(
        axes, y, 100 * statistic["mean_difference"], [100 * v for v in interval or ()] or None
    )


def all_arms(study: Study, others: Sequence[dict[str, Any]], title: str) -> Figure:
    """Test accuracy of every arm, and the difference of each to the first.

    Args:
        others: rows of `summary["against_first"]`.
    """
    arms = [arm for arm in study.arms if study.runs[arm]]
    figure = new_figure(1.9 + 0.27 * (len(arms) + len(others)), title)
    above, below = figure.subplots(2, 1, height_ratios=(len(arms), len(others)))
    for y, arm in enumerate(arms):
        values = 100 * np.array([run.results["test_accuracy"] for run in study.runs[arm]])
        mean, half = mean_and_half_width(values)
        interval = None if half is None else (mean - half, mean + half)
        _seeds_and_mean(above, y, values, float(mean), interval, arm_style(study.arms, arm))
    for y, row in enumerate(others):
        values = 100 * np.array(row["differences"])
        ends = [100 * end for end in row["ci_t"] or ()] or None
        style = arm_style(study.arms, row["arms"][1])
        _seeds_and_mean(below, y, values, 100 * row["mean_difference"], ends, style)
    below.axvline(0, color=GREY, linewidth=1)
    for axes, names in ((above, arms), (below, [row["arms"][1] for row in others])):
        axes.set_yticks(range(len(names)), [short_name(arm_name(name)) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
    above.set_xlabel("test accuracy [%]")
    below.set_xlabel(f"difference to {arm_name(others[0]['arms'][0])} [points]")
    return figure


def _seeds_and_mean(
    axes: Axes,
    y: float,
    values: np.ndarray,
    mean: float,
    interval: Sequence[float] | None,
    style: tuple[str, str],
) -> None:
    colour, marker = style
    beside = np.full(len(values), y - 0.25)
    axes.plot(values, beside, marker, color=colour, markersize=4, alpha=0.8)
    _interval_row(axes, y, mean, interval)


def reliability(study: Study, per_arm: dict[str, Any], title: str) -> Figure:
    """Accuracy against confidence in bins, and how the predictions spread over the bins."""
    figure = new_figure(5.2, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="perfect")
    arms = {arm_name(arm): arm for arm in study.arms}
    drawn = drawn_arms(study)
    for number, (name, colour, marker, _) in enumerate(drawn):
        calibration = per_arm[arms[name]]["calibration"]
        bins = [b for b in calibration["bins"] if b["count"]]
        size = 100 / len(calibration["bins"])  # bins are equally wide, from 0 to 100 %
        centres = (np.flatnonzero([b["count"] for b in calibration["bins"]]) + 0.5) * size
        confidence = np.array([b["confidence"] for b in bins], float)
        accuracy = np.array([b["accuracy"] for b in bins], float)
        count = np.array([b["count"] for b in bins], float)
        label = f"{name}: expected calibration error {100 * calibration['ece']:.1f} points"
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
    """Validation accuracy against training time: means, and each seed as a thin line."""
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
    legend_below(figure, axes, min(len(arms), 3))
    return figure
