"""The section of the part `errors`: its sentences, tables and lines for the model card."""

from collections.abc import Sequence

from cifar_jax.analysis.error_plots import error_figures
from cifar_jax.analysis.error_records import ArmErrors, Errors, Picture, Together
from cifar_jax.analysis.numbers import (
    compare_sentences,
    numbers_table,
    show_mean,
)
from cifar_jax.analysis.part import Findings
from cifar_jax.errors import counted
from cifar_jax.report.section import Section
from cifar_jax.report.tables import Table
from cifar_jax.report.text import NONE, percent
from cifar_jax.study.collect import Study

TITLE = "Errors: the same ones, and which"


def _agreement_sentence(study: Study, found: ArmErrors) -> str:
    if found.agreement is None or found.common is None:
        return ""
    seeds, total = len(found.wrong) - 1, sum(found.wrong)
    return (
        f"{study.label(found.arm)}: two seeds predict the same class for "
        f"{percent(found.agreement, 1)} of the test images. Of the images that either gets wrong, "
        f"both get {percent(found.common, 1)} wrong. All {seeds} seeds get "
        f"{counted(found.wrong[-1], 'image')} of {total:,} wrong."
    )


def _variance_sentence(study: Study, found: ArmErrors) -> str:
    if found.variance is None or found.calibrated is None:
        return ""
    measured, predicted = (100 * x**0.5 for x in (found.variance, max(found.calibrated, 0.0)))
    return (
        f"{study.label(found.arm)}: the test accuracy varies by {measured:.2f} points (standard "
        "deviation over the seeds). A calibrated ensemble, whose runs err independently, would "
        f"vary by {predicted:.2f} points (Jordan 2023)."
    )


def _deviation(variance: float | None) -> str:
    if variance is None:
        return NONE
    return f"{100 * variance**0.5:.3f} points" if variance > 0 else "none detectable"


def _together_table(study: Study, found: Together) -> Table:
    """Return a table of agreement and of the spread of the accuracy, for each arm."""
    rows = [
        (
            study.label(of.arm),
            percent(of.agreement, 1),
            percent(of.common, 1),
            f"{of.wrong[-1]:,} of {sum(of.wrong):,}",
            *(_deviation(x) for x in (of.variance, of.calibrated, of.distribution)),
        )
        for of in found.arms
    ]
    rows += [
        (
            f"{study.label(of.arm)} and {study.label(_control(found))}, equal seeds",
            percent(of.agreement, 1),
            percent(of.common, 1),
            *(NONE,) * 4,
        )
        for of in found.between
    ]
    note = (
        "Means over pairs of runs. If an ensemble is calibrated, two seeds agree as often as one "
        "is right (Jiang et al. 2022). The last columns are standard deviations of the test "
        "accuracy over the seeds: measured, as a calibrated ensemble predicts it (Jordan 2023; at "
        "least three seeds), and its part on the distribution of the images."
    )
    head = (
        "",
        "same prediction",
        "errors in common",
        "wrong with every seed",
        "spread",
        "spread, calibrated",
        "spread, distribution",
    )
    return Table("Do runs make the same errors?", note, head, rows)


def _control(found: Together) -> str:
    """Return the arm that `between` compares with."""
    others = {of.arm for of in found.between}
    return next(of.arm for of in found.arms if of.arm not in others)


def _pictures_table(pictures: Sequence[Picture], title: str, note: str) -> Table:
    rows = [(str(of.row), of.label, of.predicted, percent(of.confidence, 1)) for of in pictures]
    return Table(title, note, ("test image", "label", "predicted", "mean probability"), rows)


def _together_sentences(study: Study, found: Together) -> list[str]:
    total = sum(found.arms[0].wrong)
    runs = sum(len(study.runs[arm]) for arm in study.arms)
    lines = [_agreement_sentence(study, of) for of in found.arms]
    lines += [_variance_sentence(study, of) for of in found.arms]
    if runs > 1:
        lines.append(
            f"All {runs} runs get {counted(found.always_wrong, 'image')} of {total:,} wrong "
            f"({percent(found.always_wrong / total, 1)}). The label of such an image may be wrong, "
            "or the image unclear."
        )
    if found.suspects is not None:
        lines.append(
            f"Confident learning (Northcutt et al. 2021) finds {counted(found.suspects, 'image')} "
            f"whose label may be wrong ({percent(found.suspects / total, 1)}). Errors of the "
            "networks are among them."
        )
    elif found.why_not:
        lines.append(f"Not measured: {found.why_not}.")
    return lines


def section(findings: Findings[Errors]) -> Section:
    """Return the section: agreement, hardest images, label-noise candidates, classes."""
    study, found = findings.study, findings.together
    rows = {row.quantity.key: row for row in findings.compared}
    sentences = [
        compare_sentences(
            study, rows["confident"], "has fewer confident errors", "has more confident errors"
        ),
        compare_sentences(study, rows["gap"], "has more equal classes", "has less equal classes"),
    ]
    tables = [numbers_table(study, list(rows.values()), "Confident errors, and classes")]
    if found is not None:
        sentences += _together_sentences(study, found)
        tables.insert(0, _together_table(study, found))
        tables += [
            _pictures_table(
                found.hardest, "Wrong with every run", "The highest mean probabilities come first."
            ),
            _pictures_table(
                found.suspicious, "Labels that may be wrong", "The most suspicious come first."
            ),
        ]
    return Section(
        TITLE,
        tuple(line for line in sentences if line),
        error_figures(findings) if found is not None else (),
        tuple(tables),
    )


def card(findings: Findings[Errors], arm: str) -> list[str]:
    """Return lines on the gap between classes, and on confident errors."""
    rows = {row.quantity.key: row for row in findings.compared}
    classes = {
        key.removeprefix("class "): row
        for key, row in rows.items()
        if row.quantity.family == "classes" and arm in row.per_arm
    }
    lines = []
    if len(classes) > 1 and arm in rows["gap"].per_arm:
        by_mean = sorted(classes, key=lambda name: classes[name].per_arm[arm]["mean"])
        worst, best = by_mean[0], by_mean[-1]
        lines.append(
            f"Worst class: {worst}, {show_mean(classes[worst], arm)}. Best class: {best}, "
            f"{show_mean(classes[best], arm)}. Gap between the best and the worst class of a run: "
            f"{show_mean(rows['gap'], arm)}."
        )
    if arm in rows["confident"].per_arm:
        lines.append(
            f"Errors with more than 90 % confidence: {show_mean(rows['confident'], arm)} of all "
            "errors."
        )
    return lines
