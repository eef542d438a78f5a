"""Measures of a run or an arm: agreement, spread, convergence, smoothness, calibration.

Pure functions of arrays. They return None, not zero, for a sample that is too small.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import scipy
from numpy.typing import ArrayLike

CALIBRATION_BINS = 15
# Epochs of the steep descent at the start, which `oscillation` ignores.
SETTLING_EPOCHS = 3
_LARGEST_PART = 1_000_000  # predictions


class McNemar(TypedDict):
    """Examples that only the first, only the second classifier gets right, and the p-value."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Compute McNemar's exact two-sided test on the same examples.

    McNemar, Psychometrika 12 (1947); exact: the smaller count is binomial(b + c, 1/2).

    Args:
        first, second: bool (N,), whether a classifier is right.
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    total = only_first + only_second
    p = scipy.stats.binomtest(only_first, total).pvalue if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": float(p)}


class Variance(TypedDict):
    """Variance of the test accuracy over seeds, and its two parts (fractions squared)."""

    total: float | None
    finite_test_set: float | None
    distribution: float | None


def variance_parts(correct: np.ndarray) -> Variance:
    """Split the variance of test accuracy over seeds (Jordan 2023, arXiv 2304.01910).

    Let C[r, i] be 1 if run r is right on example i, else 0. The variance of the accuracy on N
    examples is the mean of all covariances Cov(C[:, i], C[:, j]). Those with i != j average to
    the variance on an infinite test set, the distribution's. Those with i = j come from the
    finite test set. Let V be the variance of the accuracy over runs, and v[i] that of example i
    (both with n - 1). Then

        distribution = N / (N - 1) * (V - sum(v) / N^2),  finite_test_set = V - distribution.

    This is unbiased, so it can be below zero if the true value is near zero.

    Args:
        correct: bool (seeds, N).

    Returns:
        The parts; all None below two seeds or two examples.
    """
    seeds, n = correct.shape
    if seeds < 2 or n < 2:
        return {"total": None, "finite_test_set": None, "distribution": None}
    total = correct.mean(axis=1).var(ddof=1)
    # In parts: a float for each prediction of a thousand runs would take 80 MB.
    parts = np.array_split(correct, -(-correct.size // _LARGEST_PART), axis=1)
    each = np.concatenate([part.astype(np.float64).var(axis=0, ddof=1) for part in parts])
    single = each.sum() / n**2
    distribution = n / (n - 1) * (total - single)
    return {
        "total": float(total),
        "finite_test_set": float(total - distribution),
        "distribution": float(distribution),
    }


def first_epoch(values: Sequence[float], threshold: float) -> int | None:
    """Return the first epoch, from 1, whose value is at least the threshold, or None."""
    return next((epoch for epoch, v in enumerate(values, start=1) if v >= threshold), None)


def area_under_curve(values: ArrayLike) -> float:
    """Return the mean height of a curve (epochs,) by the trapezoidal rule, in its unit."""
    x = np.asarray(values, np.float64)
    return float(np.trapezoid(x) / (len(x) - 1)) if len(x) > 1 else float(x[0])


def oscillation(losses: ArrayLike, learning_rates: ArrayLike) -> float | None:
    """Estimate the noise of a loss curve: sqrt(mean(second differences^2) / 6).

    The second difference, l[t-1] - 2 l[t] + l[t+1], ignores a linear trend. So a steeper curve
    does not count as rougher. For a line with independent noise of standard deviation s, its
    variance is 6 s^2. So the result estimates s (Gasser, Sroka and Jennen-Steinmetz, Biometrika
    73 (1986)). Windows with two learning rates do not count, because the loss falls there. Nor do
    the first three epochs, where the curve is steep.

    Args:
        losses: (epochs,), in nats.
        learning_rates: (epochs,).

    Returns:
        The estimate in nats, or None if no window counts.
    """
    x, rate = np.asarray(losses, np.float64), np.asarray(learning_rates, np.float64)
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    steady = (rate[:-2] == rate[1:-1]) & (rate[1:-1] == rate[2:])
    counted = second[SETTLING_EPOCHS:][steady[SETTLING_EPOCHS:]]
    return float(np.sqrt(np.mean(counted**2) / 6)) if len(counted) else None


class Bin(TypedDict):
    """Predictions of similar confidence: their mean confidence, accuracy and number."""

    confidence: float | None
    accuracy: float | None
    count: int


def bin_sums(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Sort predictions into equally wide bins of confidence, the largest softmax probability.

    Bin m has the confidences in ((m - 1) / bins, m / bins].

    Args:
        confidence: floats (N,).
        right: bool (N,), whether each prediction is right.
        bins: their number.

    Returns:
        Number of predictions, summed confidence and number of right ones in each bin, float64
        (3, bins). Those of several runs add up.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    weights = (np.ones(len(right)), confidence, right)
    return np.stack([np.bincount(index, weights=x, minlength=bins) for x in weights])


def calibration_error(sums: np.ndarray) -> float:
    """Return the expected calibration error of `bin_sums`, a fraction.

    It is the mean of |accuracy - confidence| over the bins, weighted by their counts (Guo et al.
    2017, arXiv 1706.04599, equation 3).
    """
    count, confidence, right = sums
    return float(np.abs(right - confidence).sum() / count.sum())


def bin_rows(sums: np.ndarray) -> list[Bin]:
    """Return the bins of `bin_sums`, from low confidence to high. An empty bin has no means."""
    return [
        {
            "confidence": float(confidence / n) if n else None,
            "accuracy": float(right / n) if n else None,
            "count": int(n),
        }
        for n, confidence, right in zip(*sums, strict=True)
    ]
