"""Turn claims into questions about the mean of one number per seed pair.

The verdict is "supported" if the study shows the claim, "not supported" if it shows the opposite,
and "undecided" if it shows neither. A small study that finds no difference is undecided.

`Better` compares the 95 % interval of `cifar_jax.study.statistics` with the claim's amount. Two
one-sided tests decide `Equivalent` (D. J. Schuirmann, Journal of Pharmacokinetics and
Biopharmaceutics 15 (1987), 657-680). It is supported if the 90 % interval is within the claim's
amount, and not supported if the 95 % interval is outside.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np

from cifar_jax.errors import listed
from cifar_jax.study.claims import (
    QUANTITIES,
    Better,
    Claim,
    Equivalent,
    Faster,
    GainsMost,
    NearlyEveryClass,
    Slower,
    Smoother,
)
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.measures import oscillation
from cifar_jax.study.samples import Sample, pair_samples
from cifar_jax.study.statistics import ALPHA, Estimate

Verdict = Literal["supported", "not supported", "undecided"]

CURVES = {"train_loss": "training loss", "val_loss": "validation loss"}
DIGITS = {"points": 2, "nats": 4, "%": 1}
# Level of the interval that two one-sided tests at 5 % compare with the claim's amount.
EQUIVALENCE_LEVEL = 1 - 2 * ALPHA


@dataclass(frozen=True, eq=False)
class Comparison:
    """The seed pairs of two arms, (than, arm), at least one, and the arms' names in text."""

    pairs: Sequence[tuple[Run, Run]]
    arm: str
    than: str

    @functools.cached_property
    def samples(self) -> dict[str, Sample]:
        """Differences of the metrics, arm minus than."""
        return pair_samples(self.pairs)

    @functools.cached_property
    def gains(self) -> dict[str, Sample]:
        """The gain of each class with test images, in points."""
        return {
            name.removeprefix("class:"): sample.scaled(100)
            for name, sample in self.samples.items()
            if name.startswith("class:")
        }


@dataclass(frozen=True, eq=False)
class Question:
    """A claim as a question about the mean of a sample.

    Attributes:
        text: the claim in words.
        subject: what the sample is, for the rule.
        sample: one value per seed pair, in `unit`; empty if the runs cannot answer.
        measured: the answer in words.
        bound: what the mean is compared with; for an equivalence, how far it may be from 0.
        sign: 1 if the claim says above the bound, -1 if below, 0 if within.
        amount: the bound in words.
    """

    text: str
    subject: str
    sample: Sample
    unit: str
    measured: str
    bound: float = 0.0
    sign: int = 1
    amount: str = "0"

    @functools.cached_property
    def found(self) -> Estimate:
        return self.sample.estimate()

    def evidence(self) -> tuple[float | None, Verdict]:
        """Return the p-value, and the verdict if it is small enough.

        The p-value is two-sided, or that of the two one-sided tests. None without an interval.
        """
        mean = self.found.mean
        p = self.found.p_of(self.bound)
        if mean is None or p is None:
            return None, "undecided"
        if self.sign:
            return p, "supported" if (mean > self.bound) == (self.sign > 0) else "not supported"
        if abs(mean) < self.bound:
            return self.found.equivalence_p(self.bound), "supported"
        return self.found.p_of(self.bound if mean > 0 else -self.bound), "not supported"

    def rule(self, comparisons: int) -> str:
        """Return the rule in words.

        Args:
            comparisons: number of claims for which Holm's method adjusts; 1 for no adjustment.
        """
        side = {1: "above", -1: "below", 0: "within"}[self.sign]
        other = {1: "below", -1: "above", 0: "outside"}[self.sign]
        tests = ""
        if comparisons > 1:
            if not self.sign:
                tests = ", by two one-sided tests (Schuirmann 1987)"
            return (
                f"{self.subject}: supported if {side} {self.amount} with p < {ALPHA}{tests}, not "
                f"supported if {other} with p < {ALPHA}; otherwise, or without an interval, "
                f"undecided. Holm's method adjusts p for this study's {comparisons} comparisons"
            )
        which = "95 % paired interval is entirely"
        opposite = f"entirely {other}"
        if not self.sign:
            tests = " (two one-sided tests, Schuirmann 1987)"
            which = f"{100 * EQUIVALENCE_LEVEL:.0f} % paired interval is entirely"
            opposite = "the 95 % interval is entirely outside"
        return (
            f"{self.subject}: supported if the {which} {side} {self.amount}{tests}, not supported "
            f"if {opposite}; otherwise, or without an interval, undecided"
        )


def _better(claim: Better, both: Comparison) -> Question:
    quantity = QUANTITIES[claim.metric]
    sample = _sample(claim.metric, both)
    sign = 1 if quantity.higher else -1
    by = f" by more than {_amount(claim.by, quantity.unit)}" if claim.by else ""
    side = "higher" if quantity.higher else "lower"
    return Question(
        f"{both.arm} has a {side} {quantity.words} than {both.than}{by}",
        _subject(claim.metric, both),
        sample,
        quantity.unit,
        _mean(sample, quantity.unit),
        sign * claim.by,
        sign,
        _amount(sign * claim.by, quantity.unit) if claim.by else "0",
    )


def _equivalent(claim: Equivalent, both: Comparison) -> Question:
    quantity = QUANTITIES[claim.metric]
    sample = _sample(claim.metric, both)
    amount = f"±{_amount(claim.within, quantity.unit)}"
    measured = _mean(sample, quantity.unit)
    ends = sample.estimate(EQUIVALENCE_LEVEL).interval
    if ends is not None:
        low, high = (f"{end:+z.{DIGITS[quantity.unit]}f}" for end in ends)
        measured += f" ({100 * EQUIVALENCE_LEVEL:.0f} % interval {low} to {high})"
    return Question(
        f"{both.arm} and {both.than} have the same {quantity.words} within {amount}",
        _subject(claim.metric, both),
        sample,
        quantity.unit,
        measured,
        claim.within,
        0,
        amount,
    )


def _sample(metric: str, both: Comparison) -> Sample:
    """Return the differences of a metric in the unit of claims."""
    name = "relative_seconds" if metric == "train_seconds" else metric
    return both.samples[name].scaled(QUANTITIES[metric].scale)


def _subject(metric: str, both: Comparison) -> str:
    words = QUANTITIES[metric].words
    if metric == "train_seconds":
        return f"{words}, {both.arm} over {both.than} minus 1"
    return f"{words}, {both.arm} minus {both.than}"


def _amount(value: float, unit: str) -> str:
    unit = unit.removesuffix("s") if abs(value) == 1 else unit
    return f"{value:g} {unit}"


def _mean(sample: Sample, unit: str) -> str:
    return f"{np.mean(sample.values):+z.{DIGITS[unit]}f} {unit}"


def _faster(claim: Faster, both: Comparison) -> Question:
    epochs = min(len(run.results.history) for run in both.pairs[0])
    early, late, sample = claim.early, claim.late, Sample([])
    measured = f"needs {late} epochs, these runs have {epochs}"
    if epochs >= max(early, late):
        points = [
            100 * (b.curve("val_accuracy")[early - 1] - a.curve("val_accuracy")[late - 1])
            for a, b in both.pairs
        ]
        sample = Sample(points, None, -100.0, 100.0)
        measured = _mean(sample, "points")
    return Question(
        f"{both.arm}'s validation accuracy after {early} epochs is about that of {both.than} "
        f"after {late}",
        f"validation accuracy, {both.arm} after {early} epochs minus {both.than} after {late}; a "
        "lead counts as support",
        sample,
        "points",
        measured,
        -claim.tolerance,
        amount=_amount(-claim.tolerance, "points"),
    )


def _smoother(claim: Smoother, both: Comparison) -> Question:
    values = [
        [oscillation(run.curve(claim.curve), run.curve("learning_rate")) for run in pair]
        for pair in both.pairs
    ]
    sample = Sample([b - a for a, b in values if a is not None and b is not None])
    words = CURVES[claim.curve]
    return Question(
        f"{both.arm}'s {words} curve is smoother than that of {both.than}",
        f"oscillation of the {words} (root mean square of second differences over sqrt 6, without "
        f"the first epochs and the learning-rate drops), {both.arm} minus {both.than}",
        sample,
        "nats",
        _mean(sample, "nats") if sample.values else "too few epochs",
        sign=-1,
    )


def _gains_most(claim: GainsMost, both: Comparison) -> Question:
    gains, named = both.gains, claim.classes
    others = [name for name in gains if name not in named]
    sample, measured = Sample([]), f"a class of {', '.join(named)} has no test image"
    if others and all(name in gains for name in named):
        sample = _contrast(
            gains,
            {name: 1 / len(named) if name in named else -1 / len(others) for name in gains},
        )
        top = sorted(gains, key=lambda name: -float(np.mean(gains[name].values)))
        measured = f"{_mean(sample, 'points')}; {', '.join(top[: len(named)])} gain most"
    text = listed(named)
    return Question(
        f"With {both.arm}, {text} gain most",
        f"mean gain of {text} minus mean gain of the other classes",
        sample,
        "points",
        measured,
    )


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


def _slower(both: Comparison) -> Question:
    sample = _sample("train_seconds", both)
    return Question(
        f"{both.arm} takes longer to train than {both.than}",
        _subject("train_seconds", both),
        sample,
        "%",
        _mean(sample, "%"),
    )


def ask(claim: Claim, both: Comparison) -> Question | None:
    """Return a claim as a question about one mean. Return None for `NearlyEveryClass`."""
    match claim:
        case Better():
            return _better(claim, both)
        case Equivalent():
            return _equivalent(claim, both)
        case Faster():
            return _faster(claim, both)
        case Smoother():
            return _smoother(claim, both)
        case GainsMost():
            return _gains_most(claim, both)
        case Slower():
            return _slower(both)
        case NearlyEveryClass():
            return None
        case _:
            assert_never(claim)


def asked(study: Study, claims: Sequence[Claim]) -> list[tuple[Claim, Comparison, Question | None]]:
    """Return the claims, each once, whose arms share a finished seed, with their questions."""
    compared: dict[tuple[str, str], Comparison] = {}
    rows = []
    for claim in dict.fromkeys(claims):
        pairs = study.pairs(claim.than, claim.arm)
        if pairs:
            both = compared.setdefault(
                (claim.arm, claim.than),
                Comparison(pairs, study.label(claim.arm), study.label(claim.than)),
            )
            rows.append((claim, both, ask(claim, both)))
    return rows
