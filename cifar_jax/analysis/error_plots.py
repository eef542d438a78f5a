"""Draw agreement between runs, images that many runs get wrong, and pictures of errors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from cifar_jax.errors import counted
from cifar_jax.report.drawing import arm_style, legend_below, new_figure
from cifar_jax.report.image_plots import DARK_ORANGE, LINE_HEIGHT, Words, show_images
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.study_figures import StudyFigure, missing_images

if TYPE_CHECKING:
    from cifar_jax.analysis.part import Findings

_MOST_WRITTEN = 10  # runs; numbers in more cells would be too small
_AGREE = "How often two runs predict the same class"
_COUNTS = "How many seeds get an image wrong"
_HARDEST = "Wrong with every run"
_SUSPICIOUS = "Labels that may be wrong"


def draw_agreement(findings: "Findings[Any]", title: str) -> Figure:
    """Draw the agreement of every two runs as colours, grouped by arm."""
    study = findings.study
    values = 100 * np.array(findings.together.matrix)
    n = len(values)
    runs = [(arm, run.seed) for arm in study.arms for run in study.runs[arm]][:n]
    np.fill_diagonal(values, np.nan)  # a run agrees with itself
    figure = new_figure(4.6, title)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis")
    figure.colorbar(image, ax=axes, label="same prediction [%]", shrink=0.85)
    if n <= _MOST_WRITTEN:
        middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
        for row, column in np.argwhere(~np.isnan(values)):
            light = values[row, column] < middle
            axes.text(
                column,
                row,
                f"{values[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if light else "black",
            )
    names = [f"{short_name(study.label(arm), 16)} {seed}" for arm, seed in runs]
    step = max(1, n // 20)
    axes.set_xticks(range(0, n, step), names[::step], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(0, n, step), names[::step], fontsize=8)
    for at in range(1, n):
        if runs[at][0] != runs[at - 1][0]:
            axes.axhline(at - 0.5, color="white", linewidth=2)
            axes.axvline(at - 0.5, color="white", linewidth=2)
    axes.grid(visible=False)
    return figure


def draw_counts(findings: "Findings[Any]", title: str) -> Figure:
    """Draw the share of images that 0, 1, ... seeds of an arm get wrong."""
    study, arms = findings.study, findings.together.arms
    figure = new_figure(3.2, title)
    axes = figure.subplots()
    width = 0.8 / len(arms)
    most = max(len(of.wrong) for of in arms)
    for number, of in enumerate(arms):
        shares = 100 * np.array(of.wrong) / sum(of.wrong)
        colour, _ = arm_style(study.arms, of.arm)
        x = np.arange(len(shares)) + width * (number - (len(arms) - 1) / 2)
        bars = axes.bar(x, shares, width, color=colour, label=study.label(of.arm))
        if most * len(arms) <= 14:
            axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    axes.set_xticks(range(most))
    axes.set_xlabel("seeds that get the image wrong")
    axes.set_ylabel("share of the test images [%]")
    axes.grid(axis="x", visible=False)
    if len(arms) > 1:
        legend_below(figure, axes, 3)
    return figure


def draw_pictures(findings: "Findings[Any]", pictures: Sequence[Any], title: str) -> Figure:
    """Draw test images with label, predicted class and its mean probability."""
    images = findings.images
    assert images is not None
    figure = new_figure(0.5 + LINE_HEIGHT * -(-len(pictures) // 3), title)
    words: list[Words] = [
        [
            ("label", of.label, "black"),
            ("predicted", of.predicted, DARK_ORANGE),
            ("probability", f"{100 * of.confidence:.1f} %", "black"),
        ]
        for of in pictures
    ]
    show_images(figure, [images.test_images[of.row] for of in pictures], words)
    return figure


def error_figures(findings: "Findings[Any]") -> tuple[StudyFigure, ...]:
    """Return the figures of the section."""
    study, found = findings.study, findings.together
    where = dataset_name(study)
    n = len(found.matrix)
    figures = []
    if n > 1:
        caption = (
            f"{where}: share of the test images for which two runs predict the same class, for "
            f"{counted(n, 'run')}. White lines separate the arms."
        )
        figures.append(
            StudyFigure(
                "23_errors_agreement",
                _AGREE,
                caption,
                lambda: draw_agreement(findings, f"{_AGREE}: {where}"),
            )
        )
        figures.append(
            StudyFigure(
                "24_errors_counts",
                _COUNTS,
                f"{where}: share of the test images that no seed, one seed, ... of an arm gets "
                "wrong. If the same images are hard for every seed, the ends are high.",
                lambda: draw_counts(findings, f"{_COUNTS}: {where}"),
            )
        )
    kinds = (
        (
            "25_errors_hardest",
            _HARDEST,
            found.hardest,
            f"{len(found.hardest)} of {found.always_wrong:,} test images that every run gets "
            "wrong, with the highest mean probability of another class.",
        ),
        (
            "26_errors_labels",
            _SUSPICIOUS,
            found.suspicious,
            f"{len(found.suspicious)} of {found.suspects or 0:,} test images whose label may be "
            "wrong, by confident learning (Northcutt et al. 2021). The most suspicious come first.",
        ),
    )
    for stem, title, pictures, words in kinds:
        if pictures:
            reason = missing_images(study, findings.images)
            build = None if reason else _build(findings, pictures, f"{title}: {where}")
            figures.append(StudyFigure(stem, title, f"{where}: {words}", build, reason))
    return tuple(figures)


def _build(findings: "Findings[Any]", pictures: Sequence[Any], title: str) -> Any:
    return lambda: draw_pictures(findings, pictures, title)
