"""Calibration: is a confidence of 80 % right in 80 % of the cases, and does a temperature help?

The temperature divides all logits. It is fitted on the validation images alone (Guo et al. 2017,
arXiv 1706.04599, section 4.2), so it never sees a test image. It changes no prediction.

Confidence is the largest softmax probability p. The errors, in bins m with n_m of N images:

- equal width: bin m has confidences in ((m - 1) / M, m / M]. The error is
  sum over m of n_m / N * |accuracy - mean confidence| (Guo et al. 2017, equation 3).
- equal mass: the same, with M bins of equally many images, sorted by confidence (Nguyen and
  O'Connor 2015, arXiv 1508.05154). Images of equal confidence keep their order.
- classwise: the error of equal width of the probability of one class, where right means that the
  label is this class. Mean over the classes (Kull et al. 2019, arXiv 1910.12656, equation 3).
- Brier: mean over the images of the squared distance of p to the one-hot label, from 0 to 2.
- negative log-likelihood, in nats.
"""

import numpy as np
from msgspec import Struct
from scipy import optimize, special

from cifar_jax.analysis.calibration_plots import reliability_figure
from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.numbers import (
    Compared,
    Number,
    Quantity,
    compare_sentences,
    numbers_table,
    show_mean,
)
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import TrainedRun
from cifar_jax.report.section import Section
from cifar_jax.runner.evaluation import cross_entropy
from cifar_jax.runner.results import Count, Share
from cifar_jax.runner.results import Number as Finite
from cifar_jax.study.collect import Study
from cifar_jax.study.measures import CALIBRATION_BINS, bin_rows, bin_sums, calibration_error

LIMITS = (0.05, 20.0)  # of the temperature


class Curve(Struct, frozen=True):
    """A reliability diagram: one value for each bin of equal width. None: the bin is empty.

    Attributes:
        confidence: mean confidence.
        accuracy: share of right predictions.
        count: number of images.
    """

    confidence: tuple[Share | None, ...]
    accuracy: tuple[Share | None, ...]
    count: tuple[Count, ...]


class Errors(Struct, frozen=True):
    """The errors of this module, as fractions; `nll` in nats; `brier` from 0 to 2."""

    equal_width: Share
    equal_mass: Share
    classwise: Share
    brier: Finite
    nll: Finite
    curve: Curve


class Calibration(Struct, frozen=True):
    """Calibration of one run on the test images.

    Attributes:
        bins: number of bins of each error.
        temperature: fitted on the validation images.
        before, after: errors as trained, and with the logits divided by the temperature.
    """

    bins: Count
    temperature: Finite
    before: Errors
    after: Errors

    def __post_init__(self) -> None:
        for curve in (self.before.curve, self.after.curve):
            if {len(curve.confidence), len(curve.accuracy), len(curve.count)} != {self.bins}:
                raise ValueError("a curve has another number of bins")


def equal_mass_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Return the calibration error with bins of equal size.

    Args:
        confidence: float64 (N,).
        right: bool (N,), whether the prediction is right.
        bins: their number.
    """
    order = np.argsort(confidence, kind="stable")
    gaps = (right[order].astype(np.float64) - confidence[order], bins)
    total = sum(abs(float(part.sum())) for part in np.array_split(*gaps))
    return min(total / len(right), 1.0)  # rounding can exceed 1


def classwise_error(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Return the classwise calibration error of probabilities (N, classes)."""
    n, classes = probabilities.shape
    index = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    gap = np.eye(classes)[labels] - probabilities
    flat = (index + bins * np.arange(classes)).ravel()
    sums = np.bincount(flat, weights=gap.ravel(), minlength=bins * classes)
    return min(float(np.abs(sums).sum()) / (n * classes), 1.0)


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the Brier score of probabilities (N, classes): from 0, the best, to 2."""
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - one_hot).sum(axis=1).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the least mean cross-entropy, within `LIMITS`.

    The cross-entropy is convex in 1 / temperature, so there is one minimum.

    Args:
        logits: floats (N, classes).
        labels: integers (N,).
    """

    def loss(logarithm: float) -> float:
        return float(cross_entropy(logits / np.exp(logarithm), labels).mean())

    found = optimize.minimize_scalar(
        loss, bounds=np.log(LIMITS), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def errors_of(logits: np.ndarray, labels: np.ndarray, bins: int) -> Errors:
    """Return the calibration errors of logits (N, classes)."""
    logits = logits.astype(np.float64)
    probabilities = special.softmax(logits, axis=1)
    right = logits.argmax(axis=1) == labels
    sums = bin_sums(probabilities.max(axis=1), right, bins)
    rows = bin_rows(sums)
    return Errors(
        equal_width=min(calibration_error(sums), 1.0),
        equal_mass=equal_mass_error(probabilities.max(axis=1), right, bins),
        classwise=classwise_error(probabilities, labels, bins),
        brier=brier_score(probabilities, labels),
        nll=float(cross_entropy(logits, labels).mean()),
        curve=Curve(
            tuple(row["confidence"] for row in rows),
            tuple(row["accuracy"] for row in rows),
            tuple(row["count"] for row in rows),
        ),
    )


def measure(trained: TrainedRun) -> Calibration:
    """Fit the temperature on the validation images, and measure on the test images."""
    images, labels = trained.val_images
    if not len(labels):
        raise Lacking("there are no validation images to fit the temperature on")
    temperature = fit_temperature(trained.outputs("validation", images).logits, labels)
    logits, labels = trained.run.logits.astype(np.float64), trained.run.label
    return Calibration(
        bins=CALIBRATION_BINS,
        temperature=temperature,
        before=errors_of(logits, labels, CALIBRATION_BINS),
        after=errors_of(logits / temperature, labels, CALIBRATION_BINS),
    )


TEMPERATURE = Quantity("temperature", "temperature", least=0.0)
CHANGE = Quantity(
    "equal_width_change", "change of the calibration error", 100.0, 2, "points", "", -1.0, 1.0
)
_KINDS = (
    ("equal_width", "calibration error, equal width"),
    ("equal_mass", "calibration error, equal mass"),
    ("classwise", "calibration error, classwise"),
)


def numbers(record: Calibration) -> list[Number]:
    """Return the temperature, and each error before and after it."""
    found = [Number(TEMPERATURE, record.temperature)]
    for when, errors in (("before", record.before), ("after", record.after)):
        words = "as trained" if when == "before" else "with temperature"
        for key, label in _KINDS:
            digits = 3 if key == "classwise" else 2
            quantity = Quantity(
                f"{key}_{when}", f"{label}, {words}", 100.0, digits, "points", "", 0.0, 1.0
            )
            found.append(Number(quantity, getattr(errors, key)))
        brier = Quantity(f"brier_{when}", f"Brier score, {words}", 1.0, 4, "", "", 0.0, 2.0)
        nll = Quantity(f"nll_{when}", f"negative log-likelihood, {words}", 1, 4, "nats", "", 0.0)
        found += [Number(brier, errors.brier), Number(nll, errors.nll)]
    change = record.after.equal_width - record.before.equal_width
    return [*found, Number(CHANGE, change)]


def _temperature_sentence(study: Study, row: Compared) -> str:
    """Say of each arm whether it is overconfident: whether the temperature is above 1."""
    words = []
    for arm, found in row.per_arm.items():
        shown, ends = show_mean(row, arm), found["ci_t"]
        if ends is None:
            verdict = "has no interval, so overconfidence is undecided"
        elif ends[0] > 1:
            verdict = "is above 1, so the network is overconfident"
        elif ends[1] < 1:
            verdict = "is below 1, so the network is underconfident"
        else:
            verdict = "has an interval that includes 1, so overconfidence is undecided"
        words.append(f"{study.label(arm)}: the temperature, {shown}, {verdict}.")
    return " ".join(words)


def section(findings: Findings[Calibration]) -> Section:
    """Return the section: reliability diagrams, what the temperature says, all errors."""
    study = findings.study
    rows = {row.quantity.key: row for row in findings.compared}
    before, after = rows["equal_width_before"], rows["equal_width_after"]
    words = "is better calibrated", "is worse calibrated"
    sentences = [
        _temperature_sentence(study, rows["temperature"]),
        compare_sentences(study, before, *words),
        compare_sentences(study, after, *words),
    ]
    bins = findings.runs[0].record.bins
    note = (
        f"Errors with {bins} bins. The temperature is fitted on the validation images alone (Guo "
        "et al. 2017). Equal mass: bins with equally many images. Classwise: mean over the classes "
        "(Kull et al. 2019)."
    )
    table = numbers_table(study, findings.compared, "Calibration errors", note)
    return Section(
        PART.title,
        tuple(sentence for sentence in sentences if sentence),
        (reliability_figure(findings),),
        (table,),
    )


PART = Part(
    name="calibration",
    title="Calibration, as trained and with a temperature",
    record=Calibration,
    measure=measure,
    numbers=numbers,
    section=section,
)
