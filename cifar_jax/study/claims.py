"""The claims of the report, each with the rule that decides it.

A rule is fixed before any measurement and uses only intervals over seed pairs, so one seed decides
no claim. The intervals follow the rule of `cifar_jax.study.statistics`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from cifar_jax.errors import counted
from cifar_jax.study.collect import Run
from cifar_jax.study.measures import oscillation
from cifar_jax.study.samples import Sample, pair_samples
from cifar_jax.study.statistics import ALPHA, Interval, holm

Pair = tuple[Run, Run]
Verdict = Literal["supported", "not supported", "undecided"]

EARLY_EPOCHS, LATE_EPOCHS = 5, 10
# Tolerance of "about the same" in points: 1.6 standard errors of an accuracy of 75 % on 5,000
# validation images.
ABOUT = 1.0
HARD_CLASSES = ("cat", "dog", "deer")
# "Nearly every" of fewer classes has no meaning.
FEWEST_CLASSES = 5
PUBLISHED_GAIN = 3.47
PUBLISHED_OVERHEAD = 11.3


def decide(interval: Interval | None, bound: float = 0.0, *, above: bool = True) -> Verdict:
    """Decide "the mean is above (or below) `bound`" from a 95 % interval for the mean."""
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
        f"{what}: supported if the 95 % paired interval is entirely {side} {bound}, "
        f"not supported if entirely {other}; otherwise, or without an interval, undecided"
    )


def _row(
    name: str, claim: str, measured: str, unit: str, verdict: Verdict, rule: str
) -> dict[str, Any]:
    return {
        "id": name,
        "claim": claim,
        "published": None,
        "measured": measured,
        "interval": None,
        "unit": unit,
        "verdict": verdict,
        "rule": rule,
        "published_inside_interval": None,
    }


def _with_interval(row: dict[str, Any], interval: Interval | None) -> dict[str, Any]:
    return {**row, "interval": None if interval is None else list(interval)}


def accuracy_gain(gain: Sample) -> dict[str, Any]:
    """Decide the claim that BatchNorm raises the test accuracy.

    Args:
        gain: of test accuracy, in points.
    """
    found = gain.estimate()
    row = _row(
        "accuracy_gain",
        "BatchNorm raises the test accuracy",
        f"{found.mean:+z.2f} points",
        "points",
        decide(found.interval),
        _rule("test accuracy, BatchNorm minus baseline", "0"),
    )
    return _with_interval(row, found.interval)


def faster_convergence(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Decide the claim that BatchNorm after 5 epochs is as good as the baseline after 10."""
    epochs = len(pairs[0][0].results.history)
    interval = None
    measured = f"needs {LATE_EPOCHS} epochs, these runs have {epochs}"
    if epochs >= LATE_EPOCHS:
        points = [
            100
            * (b.curve("val_accuracy")[EARLY_EPOCHS - 1] - a.curve("val_accuracy")[LATE_EPOCHS - 1])
            for a, b in pairs
        ]
        interval = Sample(points, None, -100.0, 100.0).estimate().interval
        measured = f"{np.mean(points):+z.2f} points"
    row = _row(
        "faster_convergence",
        f"BatchNorm's validation accuracy after {EARLY_EPOCHS} epochs is about the baseline's "
        f"after {LATE_EPOCHS}",
        measured,
        "points",
        decide(interval, -ABOUT),
        _rule(
            f"validation accuracy, BatchNorm after {EARLY_EPOCHS} epochs minus baseline after "
            f"{LATE_EPOCHS}; a lead counts as support",
            f"-{ABOUT:g} point",
        ),
    )
    return _with_interval(row, interval)


def smoother(pairs: Sequence[Pair], curve: str, words: str) -> dict[str, Any]:
    """Decide the claim that BatchNorm's loss curve oscillates less."""
    values = [
        [oscillation(run.curve(curve), run.curve("learning_rate")) for run in pair]
        for pair in pairs
    ]
    differences = [b - a for a, b in values if a is not None and b is not None]
    interval = Sample(differences).estimate().interval
    row = _row(
        f"smoother_{curve}",
        f"BatchNorm's {words} curve is smoother",
        f"{np.mean(differences):+z.4f} nats" if differences else "too few epochs",
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
    return _with_interval(row, interval)


def class_gains(samples: dict[str, Sample]) -> dict[str, Sample]:
    """Return the gain of each class with test images, in points.

    Args:
        samples: of `pair_samples`.
    """
    return {
        name.removeprefix("class:"): sample.scaled(100)
        for name, sample in samples.items()
        if name.startswith("class:")
    }


def nearly_every_class(gains: dict[str, Sample]) -> dict[str, Any]:
    """Decide the claim that BatchNorm improves nearly every class.

    "Supported" needs nearly all intervals, so the error rate does not grow with the number of
    classes, and each interval may have 95 %. "Not supported" needs any two classes, so Holm's
    method adjusts the p-values for the number of classes.
    """
    found = [gain.estimate() for gain in gains.values()]
    verdicts = [decide(one.interval) for one in found]
    total, better, worse = (
        len(found),
        verdicts.count("supported"),
        verdicts.count("not supported"),
    )
    adjusted = holm([1.0 if one.p is None else one.p for one in found])
    surely_worse = sum(
        v == "not supported" and p is not None and p < ALPHA
        for v, p in zip(verdicts, adjusted, strict=True)
    )
    verdict: Verdict = "undecided"
    if total >= FEWEST_CLASSES and surely_worse > 1:
        verdict = "not supported"
    elif total >= FEWEST_CLASSES and better >= total - 1 and not worse:
        verdict = "supported"
    higher = sum((one.mean or 0.0) > 0 for one in found)
    if total >= FEWEST_CLASSES:
        rule = (
            f"supported if the 95 % paired intervals of at least {total - 1} of {total} classes "
            "are entirely above 0 and none entirely below; not supported if two or more are below "
            f"after Holm's correction for {total} classes; otherwise, or with one seed, undecided"
        )
    else:
        rule = f"undecided with fewer than {FEWEST_CLASSES} classes"
    return _row(
        "nearly_every_class",
        "BatchNorm improves nearly every class",
        f"{higher} of {counted(total, 'class')} with a higher mean; {better} clearly higher, "
        f"{worse} clearly lower",
        "classes",
        verdict,
        rule,
    )


def hard_classes_gain_most(gains: dict[str, Sample]) -> dict[str, Any]:
    """Decide the claim that cat, dog and deer gain more than the other classes."""
    interval, measured = None, f"a class of {', '.join(HARD_CLASSES)} has no test image"
    others = [name for name in gains if name not in HARD_CLASSES]
    if others and all(name in gains for name in HARD_CLASSES):
        weights = {
            name: 1 / len(HARD_CLASSES) if name in HARD_CLASSES else -1 / len(others)
            for name in gains
        }
        contrast = _contrast(gains, weights)
        interval = contrast.estimate().interval
        top = sorted(gains, key=lambda name: -float(np.mean(gains[name].values)))
        measured = (
            f"{np.mean(contrast.values):+z.2f} points; {', '.join(top[: len(HARD_CLASSES)])} gain "
            "most"
        )
    row = _row(
        "hard_classes_gain_most",
        "Cat, dog and deer gain most",
        measured,
        "points",
        decide(interval),
        _rule("mean gain of cat, dog and deer minus mean gain of the other classes", "0"),
    )
    return _with_interval(row, interval)


def _contrast(gains: dict[str, Sample], weights: dict[str, float]) -> Sample:
    """Return the weighted sum of the gains of classes.

    Each image's value is its part of the sum. The mean of these values is the sum, and their
    variance over N is the variance of the sum.
    """
    values = np.sum([w * np.array(gains[name].values) for name, w in weights.items()], axis=0)
    each = [gains[name].images for name in weights]
    total = sum(len(images) for images in each if images is not None)
    parts = [
        float(np.mean(values)) + total * w / len(images) * (images - images.mean())
        for w, images in zip(weights.values(), each, strict=True)
        if images is not None
    ]
    step = max(abs(w) * gains[name].resolution for name, w in weights.items())
    return Sample(values.tolist(), np.concatenate(parts), -200.0, 200.0, step)


def time_overhead(relative: Sample) -> dict[str, Any]:
    """Decide the claim that BatchNorm takes longer to train.

    Args:
        relative: its time over the baseline's, minus 1, in per cent.
    """
    found = relative.estimate()
    row = _row(
        "time_overhead",
        "BatchNorm takes longer to train",
        f"{found.mean:+z.1f} %",
        "%",
        decide(found.interval),
        _rule("training time, BatchNorm over baseline minus 1", "0"),
    )
    return _with_interval(row, found.interval)


# The report's text, and its number, which an interval may contain.
_PUBLISHED: dict[str, tuple[str, float | None]] = {
    "accuracy_gain": (f"+{PUBLISHED_GAIN} points", PUBLISHED_GAIN),
    "faster_convergence": ("about equal", None),
    "smoother_train_loss": ("by eye", None),
    "smoother_val_loss": ("by eye", None),
    "nearly_every_class": ("nearly every class", None),
    "hard_classes_gain_most": ("cat, dog, deer", None),
    "time_overhead": (f"+{PUBLISHED_OVERHEAD} %", PUBLISHED_OVERHEAD),
}


def _with_published(row: dict[str, Any]) -> dict[str, Any]:
    """Add the report's text and number to a claim's row."""
    text, number = _PUBLISHED[row["id"]]
    ends = row["interval"]
    inside = None if number is None or ends is None else ends[0] <= number <= ends[1]
    return {**row, "published": text, "published_inside_interval": inside}


def claims(pairs: Sequence[Pair], cifar10: bool) -> list[dict[str, Any]]:
    """Return all claims as rows of plain data; [] without a pair.

    Args:
        pairs: (baseline, BatchNorm) of the same seed.
        cifar10: whether the images are CIFAR-10's. Only then do published numbers and claims about
            named classes apply.
    """
    if not pairs:
        return []
    samples = pair_samples(pairs)
    gains = class_gains(samples)
    rows = [
        accuracy_gain(samples["test_accuracy"].scaled(100)),
        faster_convergence(pairs),
        smoother(pairs, "train_loss", "training loss"),
        smoother(pairs, "val_loss", "validation loss"),
        nearly_every_class(gains),
        *([hard_classes_gain_most(gains)] if cifar10 else []),
        time_overhead(samples["relative_seconds"].scaled(100)),
    ]
    return [_with_published(row) for row in rows] if cifar10 else rows
