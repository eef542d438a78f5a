"""List the figures of a study with titles and captions, and why one cannot be drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import counted, listed
from cifar_jax.report.class_plots import (
    class_counts,
    confusion_difference,
    confusions,
    counts_caption,
    per_class,
    sorted_note,
)
from cifar_jax.report.estimation_plots import curve
from cifar_jax.report.image_plots import (
    MOST_OF_EACH,
    disagreement_images,
    disagreements,
    samples,
    samples_caption,
)
from cifar_jax.report.matrix import cells_note
from cifar_jax.report.naming import dataset_name, paired_runs, shared_draws, study_config
from cifar_jax.report.study_plots import (
    MOST_EXTREME,
    accuracy_over_time,
    all_arms,
    common_drops,
    curves,
    differences,
    reliability,
    times,
)
from cifar_jax.study.collect import Study
from cifar_jax.study.statistics import MANY_SEEDS
from cifar_jax.study.summary import compared_arms, is_cifar10, is_reports_pair


@dataclass(frozen=True)
class StudyFigure:
    """One figure of the report.

    Attributes:
        stem: file name without suffix.
        title: a few words.
        caption: plain text that names the dataset.
        build: draws the figure; None if that is impossible.
        reason: sentence that says why it cannot be drawn, or "".
    """

    stem: str
    title: str
    caption: str
    build: Callable[[], Figure] | None
    reason: str = ""


def planned(
    where: str,
    stem: str,
    title: str,
    caption: str,
    draw: Callable[[str], Figure],
    reason: str = "",
) -> StudyFigure:
    """Return a figure of a dataset.

    Args:
        where: name of the dataset, for caption and title.
        stem, title, caption: see `StudyFigure`.
        draw: draws the figure under a title.
        reason: why it cannot be drawn, or "".
    """
    build = None if reason else partial(draw, f"{title}: {where}")
    return StudyFigure(stem, title, f"{where}: {caption}", build, reason)


def with_images(
    images: Dataset | None, draw: Callable[[Dataset, str], Figure]
) -> Callable[[str], Figure]:
    """Return a function that draws with images. `missing_images` says why it cannot."""
    return lambda title: draw(images, title)  # type: ignore[arg-type]


def missing_images(study: Study, images: Dataset | None) -> str:
    """Return why figures with images cannot be drawn, or ""."""
    if images is None:
        return "The images were not found when the report was written."
    if images.fingerprint != study.dataset.fingerprint:
        return "The images that were found are not those of the study."
    return ""


def image_figures(study: Study, images: Dataset | None) -> list[StudyFigure]:
    """Return the figures of the images: samples, and counts of the classes."""
    where, classes = dataset_name(study), study.dataset.classes
    data, reason = study_config(study)["data"], missing_images(study, images)
    return [
        planned(
            where,
            "01_samples",
            "One image a class",
            samples_caption(classes),
            with_images(images, samples),
            reason,
        ),
        planned(
            where,
            "02_class_counts",
            "Class counts",
            counts_caption(classes),
            with_images(images, lambda found, title: class_counts(found, data, title)),
            reason,
        ),
    ]


def _several(study: Study) -> bool:
    """Return whether an arm has several seeds, so that there are intervals."""
    return any(len(study.runs.get(arm, ())) > 1 for arm in study.arms)


def _arm_figures(study: Study, summary: dict[str, Any]) -> list[StudyFigure]:
    """Return the figures with each arm for itself."""
    classes = study.dataset.classes
    counts = {study.label(arm): len(study.runs.get(arm, ())) for arm in study.arms}
    number = listed([f"{counted(n, 'seed')} of {name}" for name, n in counts.items() if n])
    several = _several(study)
    thin = any(1 < n <= MANY_SEEDS for n in counts.values())
    band = " Lines are means, bands 95 % intervals of the mean." if several else ""
    drops = " Grey dashed lines show drops of the learning rate." * bool(common_drops(study))
    whisker = " Whiskers are 95 % intervals as in the tables." if several else ""
    mean = ", mean over the seeds" if several else ""
    device = summary["device"] or "an unknown device"
    entry = partial(planned, dataset_name(study))
    return [
        entry(
            "03_loss",
            "Loss",
            f"training and validation loss over the epochs, {number}. The training loss includes "
            f"augmentation and dropout.{drops}{band}",
            lambda title: curves(study, "loss", title),
        ),
        entry(
            "04_accuracy",
            "Accuracy",
            f"training and validation accuracy over the epochs, {number}. See the figure of the "
            f"loss.{band}",
            lambda title: curves(study, "accuracy", title),
        ),
        entry(
            "05_confusion",
            "Confusion matrices",
            f"shares of each true class on the test set in per cent{mean}; {number}."
            f"{cells_note(classes)}",
            lambda title: confusions(study, classes, title),
        ),
        entry(
            "06_per_class",
            "Accuracy of each class",
            f"test accuracy of each class, {number}.{sorted_note(classes) or whisker}",
            lambda title: per_class(study, summary["per_arm"], classes, title),
        ),
        entry(
            "09_time",
            "Training time",
            f"time of each epoch and from the start, without compilation, {number}, on "
            f"{device}.{band}",
            lambda title: times(study, title),
        ),
        entry(
            "11_reliability",
            "Calibration",
            f"accuracy of the test predictions against their confidence, {number}. Below the "
            "diagonal the network is overconfident. The expected calibration error is the mean "
            "distance from the diagonal, weighted by the number of predictions.",
            lambda title: reliability(study, summary["per_arm"], title),
        ),
        entry(
            "12_accuracy_over_time",
            "Accuracy against time",
            f"validation accuracy against training time, one mark an epoch, {number}, on "
            f"{device}.{' Thin lines are single seeds.' if thin else ''}",
            lambda title: accuracy_over_time(study, title),
        ),
    ]


def _pair_figures(
    study: Study, summary: dict[str, Any], images: Dataset | None
) -> list[StudyFigure]:
    """Return the figures that compare two arms."""
    classes, both = study.dataset.classes, compared_arms(study)
    pairs = paired_runs(study)
    a, b = (study.label(arm) for arm in both) if both else ("", "")
    no_pair = "" if pairs else "It needs two arms with a common seed."
    mean = ", mean over the seeds" if _several(study) else ""
    seeds = "bars count seeds" if len(pairs) > MANY_SEEDS else "a line is a seed"
    published = is_cifar10(study) and is_reports_pair(study)
    difference = summary["paired"] or {}
    bars = ", bars 95 % intervals as in the tables" if len(pairs) > 1 else ""
    shape = bool(difference) and curve(difference["test_accuracy"], 1)
    of_mean = " The grey curve is the t distribution of the mean difference." if shape else ""
    seed = f"seed {pairs[0][0].seed}" if pairs else ""
    gained, lost = map(len, disagreements(study)) if pairs else (0, 0)
    many = bool(sorted_note(classes))
    extremes = f" Only the {MOST_EXTREME} classes at each end are shown." if many else ""
    entry = partial(planned, dataset_name(study))
    return [
        entry(
            "07_confusion_difference",
            "Difference of the confusion matrices",
            f"{b} minus {a}, in points of each true class{mean}. On the diagonal orange means that "
            f"{b} is better. Off the diagonal purple means that {b} makes fewer such errors."
            f"{cells_note(classes)}",
            lambda title: confusion_difference(study, classes, title),
            no_pair,
        ),
        entry(
            "08_disagreements",
            f"Where {b} and {a} disagree" if both else "Where two arms disagree",
            f"with {seed}, {b} gets {gained:,} test images right that {a} gets wrong, and "
            f"{lost:,} wrong that {a} gets right. Up to {MOST_OF_EACH} of each are shown, spread "
            "over the classes. Images on which this is true for most seeds come first.",
            with_images(images, lambda found, title: disagreement_images(study, found, title)),
            no_pair or missing_images(study, images),
        ),
        entry(
            "10_paired_differences",
            "Paired differences",
            f"test accuracy of {a} and {b}; {seeds}. {shared_draws(study)} The right axis "
            f"has the difference: {b} minus {a}. Zero is at the mean of {a}. Below is the "
            f"difference for each class. Diamonds are means over the seeds{bars}.{of_mean}"
            f"{extremes}",
            lambda title: differences(study, difference, classes, published, title),
            no_pair,
        ),
    ]


def _all_arms_figures(study: Study, summary: dict[str, Any]) -> list[StudyFigure]:
    """Return the figure of more than two arms, if there are so many."""
    others = summary["against_first"]
    if len(others) < 2:
        return []
    against = study.label(others[0]["arms"][0])
    bars = ", bars 95 % intervals as in the tables" if _several(study) else ""
    return [
        planned(
            dataset_name(study),
            "13_all_arms",
            "All arms",
            "left, the test accuracy of every arm, a small mark a seed. Right, its difference "
            f"to {against} with the same seed. Diamonds are means{bars}. They are not adjusted "
            "for the number of arms; the table has adjusted p-values.",
            lambda title: all_arms(study, summary["per_arm"], others, title),
        )
    ]


def study_figures(
    study: Study, summary: dict[str, Any], images: Dataset | None
) -> list[StudyFigure]:
    """Return all figures of a study, in the report's order."""
    figures = [
        *image_figures(study, images),
        *_arm_figures(study, summary),
        *_pair_figures(study, summary, images),
        *_all_arms_figures(study, summary),
    ]
    # The question of a file is about the difference.
    first = "10_paired_differences" if study.file else ""
    return sorted(figures, key=lambda figure: (figure.stem != first, figure.stem))
