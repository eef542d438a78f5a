"""The claims of the report, each with the rule that decides it.

A rule is fixed before anything is measured and looks only at intervals over seed pairs, so one
seed decides nothing.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from cifar_jax.study.collect import Run
from cifar_jax.study.statistics import Interval, oscillation, t_interval

Pair = tuple[Run, Run]
Verdict = Literal["supported", "not supported", "undecided"]

EARLY_EPOCHS, LATE_EPOCHS = 5, 10
# Points by which "about the same" may fall short: 1.6 standard errors of an accuracy of 75 %
# on 5,000 validation images.
ABOUT = 1.0
HARD_CLASSES = ("cat", "dog", "deer")
PUBLISHED_GAIN = 3.47
PUBLISHED_OVERHEAD = 11.3


def decide(interval: Interval | None, bound: float = 0.0, *, above: bool = True) -> Verdict:
    """Verdict on "the mean lies above (or below) `bound`" from a 95 % interval for the mean."""
    if interval is None:
        return "undecided"
    low, high = interval
    if low > bound:
        return "supported" if above else "not supported"
    if high < bound:
        return "not supported" if above else "supported"
    return "undecided"


def _rule(what: str, bound: str, *, above: bool = True) -> str:
    side, other = ("above", "below") if above else ("below", "above")
    return (
        f"{what}: supported if the 95 % paired t interval lies entirely {side} {bound}, "
        f"not supported if entirely {other}, else (or with one seed) undecided"
    )


def _contains(interval: Interval | None, value: float) -> bool | None:
    return None if interval is None else interval[0] <= value <= interval[1]


def _row(
    name: str,
    claim: str,
    published: str,
    measured: str,
    interval: Interval | None,
    unit: str,
    verdict: Verdict,
    rule: str,
    published_inside: bool | None = None,
) -> dict[str, Any]:
    return {
        "id": name,
        "claim": claim,
        "published": published,
        "measured": measured,
        "interval": None if interval is None else list(interval),
        "unit": unit,
        "verdict": verdict,
        "rule": rule,
        "published_inside_interval": published_inside,
    }


def accuracy_gain(pairs: Sequence[Pair]) -> dict[str, Any]:
    """BatchNorm raises the test accuracy."""
    points = [100 * (b.results["test_accuracy"] - a.results["test_accuracy"]) for a, b in pairs]
    interval = t_interval(points)
    return _row(
        "accuracy_gain",
        "BatchNorm raises the test accuracy",
        f"+{PUBLISHED_GAIN} points",
        f"{np.mean(points):+.2f} points",
        interval,
        "points",
        decide(interval),
        _rule("test accuracy, BatchNorm minus baseline", "0"),
        _contains(interval, PUBLISHED_GAIN),
    )


def faster_convergence(pairs: Sequence[Pair]) -> dict[str, Any]:
    """BatchNorm after 5 epochs is about where the baseline is after 10, or further."""
    epochs = len(pairs[0][0].results["history"])
    interval = None
    measured = f"needs {LATE_EPOCHS} epochs, these runs have {epochs}"
    if epochs >= LATE_EPOCHS:
        points = [
            100
            * (b.curve("val_accuracy")[EARLY_EPOCHS - 1] - a.curve("val_accuracy")[LATE_EPOCHS - 1])
            for a, b in pairs
        ]
        interval = t_interval(points)
        measured = f"{np.mean(points):+.2f} points"
    return _row(
        "faster_convergence",
        f"BatchNorm's validation accuracy after {EARLY_EPOCHS} epochs is about the baseline's "
        f"after {LATE_EPOCHS}",
        "about equal",
        measured,
        interval,
        "points",
        decide(interval, -ABOUT),
        _rule(
            f"validation accuracy, BatchNorm after {EARLY_EPOCHS} epochs minus baseline after "
            f"{LATE_EPOCHS}; a lead counts as support",
            f"-{ABOUT:g} point",
        ),
    )


def smoother(pairs: Sequence[Pair], curve: str, words: str) -> dict[str, Any]:
    """BatchNorm's loss oscillates less from epoch to epoch."""
    values = [
        [oscillation(run.curve(curve), run.curve("learning_rate")) for run in pair]
        for pair in pairs
    ]
    differences = [b - a for a, b in values if a is not None and b is not None]
    interval = t_interval(differences)
    measured = f"{np.mean(differences):+.4f} nats" if differences else "too few epochs"
    return _row(
        f"smoother_{curve}",
        f"BatchNorm's {words} curve is smoother",
        "by eye",
        measured,
        interval,
        "nats",
        decide(interval, above=False),
        _rule(
            f"oscillation of the {words} (root mean square of second differences over "
            "sqrt 6, without the first epochs and the learning-rate drops), BatchNorm minus "
            "baseline",
            "0",
            above=False,
        ),
    )


def class_gains(pairs: Sequence[Pair]) -> dict[str, list[float]]:
    """Gain of each class, in points a pair; classes without a test image are left out."""
    tables = [(a.results["per_class_accuracy"], b.results["per_class_accuracy"]) for a, b in pairs]
    return {
        name: [100 * (b[name] - a[name]) for a, b in tables]
        for name, value in tables[0][0].items()
        if value is not None
    }


def nearly_every_class(gains: dict[str, list[float]]) -> dict[str, Any]:
    """BatchNorm improves nearly every class."""
    verdicts = {name: decide(t_interval(points)) for name, points in gains.items()}
    total = len(gains)
    better, worse = (
        sum(v == kind for v in verdicts.values()) for kind in ("supported", "not supported")
    )
    verdict: Verdict = "undecided"
    if worse > 1:
        verdict = "not supported"
    elif better >= total - 1:
        verdict = "supported"
    higher = sum(np.mean(points) > 0 for points in gains.values())
    return _row(
        "nearly_every_class",
        "BatchNorm improves nearly every class",
        "nearly every class",
        f"{higher} of {total} classes have a higher mean; {better} clearly higher, "
        f"{worse} clearly lower",
        None,
        "classes",
        verdict,
        f"supported if the 95 % paired t intervals of at least {total - 1} of {total} classes "
        "lie entirely above 0, not supported if those of two or more lie entirely below, "
        "else (or with one seed) undecided",
    )


def hard_classes_gain_most(gains: dict[str, list[float]]) -> dict[str, Any]:
    """Cat, dog and deer gain more than the other classes."""
    interval, measured = None, f"no classes {', '.join(HARD_CLASSES)} in this dataset"
    others = [points for name, points in gains.items() if name not in HARD_CLASSES]
    if others and all(name in gains for name in HARD_CLASSES):
        hard = [gains[name] for name in HARD_CLASSES]
        points = np.mean(hard, axis=0) - np.mean(others, axis=0)
        interval = t_interval(points)
        top = sorted(gains, key=lambda name: -float(np.mean(gains[name])))[: len(hard)]
        measured = f"{np.mean(points):+.2f} points; {', '.join(top)} gain most"
    return _row(
        "hard_classes_gain_most",
        "Cat, dog and deer gain most",
        "cat, dog, deer",
        measured,
        interval,
        "points",
        decide(interval),
        _rule("mean gain of cat, dog and deer minus mean gain of the other classes", "0"),
    )


def time_overhead(pairs: Sequence[Pair]) -> dict[str, Any]:
    """BatchNorm takes longer to train."""
    percent = [
        100 * (b.results["train_seconds"] / a.results["train_seconds"] - 1) for a, b in pairs
    ]
    interval = t_interval(percent, least=-100.0)
    return _row(
        "time_overhead",
        "BatchNorm takes longer to train",
        f"+{PUBLISHED_OVERHEAD} %",
        f"{np.mean(percent):+.1f} %",
        interval,
        "%",
        decide(interval),
        _rule("training time, BatchNorm over baseline minus 1", "0"),
        _contains(interval, PUBLISHED_OVERHEAD),
    )


def claims(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """All claims as rows of plain data; none without a pair.

    Args:
        pairs: (baseline, BatchNorm) of the same seed.
    """
    if not pairs:
        return []
    gains = class_gains(pairs)
    return [
        accuracy_gain(pairs),
        faster_convergence(pairs),
        smoother(pairs, "train_loss", "training loss"),
        smoother(pairs, "val_loss", "validation loss"),
        nearly_every_class(gains),
        hard_classes_gain_most(gains),
        time_overhead(pairs),
    ]
