"""Errors: which images do runs get wrong, and do they get the same ones wrong?

All numbers are of the predictions on the test images, so no checkpoint and no image is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from cifar_jax.analysis import agreement
from cifar_jax.analysis.error_records import ArmErrors, Between, Errors, Picture, Together
from cifar_jax.analysis.error_section import TITLE, card, section
from cifar_jax.analysis.label_noise import cleanlab_version, label_issues
from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.numbers import Number, Quantity, share
from cifar_jax.analysis.part import Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.study.collect import Run, Study

CONFIDENT = 0.9
MOST_PICTURES = 15
MOST_RUNS = 40  # of the matrix of agreements


def measure(trained: TrainedRun) -> Errors:
    """Measure the errors of one run on the test images."""
    run = trained.run
    confidence = special.softmax(run.logits.astype(np.float64), axis=1).max(axis=1)
    wrong = confidence[~run.correct]
    classes = run.tested.per_class_accuracy
    known = [value for value in classes.values() if value is not None]
    return Errors(
        confident=float((wrong > CONFIDENT).mean()) if len(wrong) else None,
        classes=classes,
        gap=max(known) - min(known),
    )


def numbers(record: Errors) -> list[Number]:
    """Return the share of confident errors, the gap, and the accuracy of each class."""
    gap = Quantity("gap", "gap between best and worst class", 100.0, 1, "points", "", 0.0, 1.0)
    return [
        Number(
            share("confident", "errors with more than 90 % confidence", "", 1), record.confident
        ),
        Number(gap, record.gap),
        *(
            Number(share(f"class {name}", f"accuracy, {name}", "classes", 1), value)
            for name, value in record.classes.items()
        ),
    ]


def _arm_errors(arm: str, runs: Sequence[Run], classes: int) -> ArmErrors:
    predicted = np.stack([run.predicted for run in runs])
    wrong = np.stack([~run.correct for run in runs])
    variance, distribution = agreement.measured_variance(~wrong)
    return ArmErrors(
        arm=arm,
        agreement=agreement.over_pairs(agreement.agreement(predicted)),
        common=agreement.over_pairs(agreement.common_errors(wrong)),
        wrong=tuple(agreement.wrong_counts(wrong)),
        variance=variance,
        distribution=distribution,
        calibrated=agreement.calibrated_variance(predicted, classes),
    )


def _between(study: Study, control: str, arm: str) -> Between | None:
    """Compare the arms' runs of equal seeds. None without such a pair."""
    pairs = study.pairs(control, arm)
    if not pairs:
        return None
    same = [np.mean(a.predicted == b.predicted) for a, b in pairs]
    errors = [agreement.common_errors(np.stack([~a.correct, ~b.correct]))[0, 1] for a, b in pairs]
    known = [value for value in errors if not np.isnan(value)]
    return Between(arm, float(np.mean(same)), float(np.mean(known)) if known else None)


def together(shared: Shared) -> Together:
    """Measure what the runs of a study get wrong together."""
    study = shared.study
    arms = [arm for arm in study.arms if study.runs[arm]]
    runs = [run for arm in arms for run in study.runs[arm]]
    names, label = study.dataset.classes, runs[0].label
    mean = np.mean([special.softmax(run.logits.astype(float), axis=1) for run in runs], axis=0)

    def picture(row: int) -> Picture:
        best = int(mean[row].argmax())
        return Picture(row, names[label[row]], names[best], float(mean[row, best]))

    never = np.flatnonzero(~np.any([run.correct for run in runs], axis=0))
    hardest = never[np.argsort(-mean[never].max(axis=1), kind="stable")][:MOST_PICTURES]
    suspects: list[int] | None = None
    why_not = None
    try:
        suspects = label_issues(label, mean)
    except Lacking as error:
        why_not = str(error)
    control = study.control if study.control in arms else arms[0]
    others = [_between(study, control, arm) for arm in arms if arm != control]
    matrix = agreement.agreement(np.stack([run.predicted for run in runs[:MOST_RUNS]]))
    return Together(
        arms=tuple(_arm_errors(arm, study.runs[arm], len(names)) for arm in arms),
        between=tuple(row for row in others if row is not None),
        matrix=tuple(tuple(row) for row in matrix.tolist()),
        always_wrong=len(never),
        hardest=tuple(picture(int(row)) for row in hardest),
        suspects=None if suspects is None else len(suspects),
        suspicious=tuple(picture(row) for row in (suspects or [])[:MOST_PICTURES]),
        why_not=why_not,
    )


def options(shared: Shared) -> dict[str, Any]:
    """Return the version of cleanlab, which finds the label-noise candidates."""
    return {"cleanlab": cleanlab_version()}


PART = Part(
    name="errors",
    title=TITLE,
    record=Errors,
    measure=measure,
    numbers=numbers,
    section=section,
    options=options,
    together=together,
    together_record=Together,
    card=card,
)
