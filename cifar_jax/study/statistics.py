"""The statistics of a study: pure functions of arrays.

The sample is one value a seed, or one difference a seed pair, so n is small: 3 to 20. Where a
sample is too small for a statistic, the answer is None, never zero.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

Interval = tuple[float, float]

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
# Above this, "how many seeds" is answered with None.
MOST_SEEDS = 1_000_000
# Up to so many differences the sign flips are enumerated: 2^20 sums are 8 MB.
MOST_EXACT_FLIPS = 20
CALIBRATION_BINS = 15
# Epochs of the steep descent at the start, which `oscillation` leaves out.
SETTLING_EPOCHS = 3


def _sample(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float64)


def standard_deviation(values: ArrayLike) -> float | None:
    """Sample standard deviation (n - 1 in the denominator) of (n,); None below two values."""
    x = _sample(values)
    return float(x.std(ddof=1)) if len(x) > 1 else None


def t_interval(
    values: ArrayLike, level: float = LEVEL, least: float = -np.inf, most: float = np.inf
) -> Interval | None:
    """Student's interval for the mean: mean -+ t(n - 1) * s / sqrt(n).

    Of differences within pairs it is the paired t interval. Student, "The probable error of a
    mean", Biometrika 6 (1908).

    Args:
        values: (n,).
        level: of confidence.
        least, most: what the mean cannot be below or above (a time, a share). The interval is cut
            there, which changes nothing about how often it covers the mean.

    Returns:
        Its ends, or None below two values.
    """
    x = _sample(values)
    n = len(x)
    if n < 2:
        return None
    half = stats.t.ppf((1 + level) / 2, n - 1) * x.std(ddof=1) / np.sqrt(n)
    return max(float(x.mean() - half), least), min(float(x.mean() + half), most)


def bootstrap_interval(
    values: ArrayLike, level: float = LEVEL, resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval for the mean; the same values give the same interval.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Percentile and
    not BCa: BCa's correction is estimated from the jackknife of a handful of seeds, where it
    is mostly noise. It assumes no distribution, but is too narrow below about ten values (five
    values: about 83 % instead of 95 %), so verdicts rest on `t_interval`.

    Args:
        values: (n,).

    Returns:
        Its ends, or None below two values.
    """
    x = _sample(values)
    n = len(x)
    if n < 2:
        return None
    rows = np.random.default_rng(seed).integers(0, n, (resamples, n))
    low, high = np.quantile(x[rows].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_p(differences: ArrayLike, draws: int = 99_999, seed: int = 0) -> float | None:
    """Two-sided p-value of the sign-flip permutation test that the differences centre on 0.

    The share of the 2^n assignments of signs whose sum is at least as far from 0 as the
    observed one. Up to 20 differences all are enumerated (Fisher, The Design of Experiments
    (1935), section 21); above, `draws` random ones and the observed one are counted, which
    keeps the test valid (Phipson and Smyth 2010, arXiv 1603.05766). With n differences p
    cannot be below 2^(1 - n): 0.0625 for five.

    Args:
        differences: (n,).

    Returns:
        p, or None below two differences.
    """
    d = _sample(differences)
    n = len(d)
    if n < 2:
        return None
    # Sums of the same numbers in another order may differ in the last bits.
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if n <= MOST_EXACT_FLIPS:
        # The other half has the opposite sums.
        sums = d[:1]
        for value in d[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed))
    signs = 2 * np.random.default_rng(seed).integers(0, 2, (draws, n)) - 1
    extreme = int(np.sum(np.abs(signs @ d) >= observed))
    return (extreme + 1) / (draws + 1)


def paired_t_p(differences: ArrayLike) -> float | None:
    """Two-sided p-value of the paired t test that the differences have mean 0.

    Below 0.05 just where `t_interval` leaves out 0. None below two differences, and where they
    are all the same but for 1 where they are all 0.
    """
    d = _sample(differences)
    if len(d) > 1 and not d.any():
        return 1.0
    if cohens_dz(d) is None:
        return None
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted so that the chance of any false discovery among them stays below alpha.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979): the k-th smallest of m is multiplied by m - k + 1, made increasing and
    cut at 1. It holds whatever the dependence, so also for differences that share an arm.

    Args:
        p_values: None where there was no test; these do not count.

    Returns:
        The adjusted ones, in the order given.
    """
    tested = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, at) in enumerate(tested):
        most = max(most, min(1.0, p * (len(tested) - rank)))
        adjusted[at] = most
    return adjusted


def cohens_dz(differences: ArrayLike) -> float | None:
    """Mean of the differences over their standard deviation.

    Cohen, Statistical Power Analysis (1988), section 2.3. None below two differences, and
    where they are all the same.
    """
    d = _sample(differences)
    deviation = standard_deviation(d)
    if deviation is None or deviation <= 1e-12 * np.abs(d).max():
        return None
    return float(d.mean() / deviation)


def paired_t_power(dz: float, n: int, alpha: float = ALPHA) -> float:
    """Power of the two-sided paired t test with n pairs, if the true effect is `dz`.

    The t statistic has n - 1 degrees of freedom and noncentrality dz * sqrt(n).
    """
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = abs(dz) * np.sqrt(n)
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))


def seeds_for_power(dz: float | None, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Least number of seed pairs with which the paired t test reaches `power`.

    None without an effect size, or if it takes more than a million.
    """
    if dz is None:
        return None
    high = 2
    while paired_t_power(dz, high, alpha) < power:
        high *= 2
        if high > MOST_SEEDS:
            return None
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        if paired_t_power(dz, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


class McNemar(TypedDict):
    """Examples that only the first, only the second classifier gets right, and the p-value."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's exact two-sided test on the same examples.

    McNemar, Psychometrika 12 (1947); exact: the smaller count is binomial(b + c, 1/2).

    Args:
        first, second: bool (N,), whether a classifier is right.
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    total = only_first + only_second
    p = stats.binomtest(only_first, total).pvalue if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": float(p)}


class Variance(TypedDict):
    """Variance of the test accuracy over seeds, and its two parts (fractions squared)."""

    total: float | None
    finite_test_set: float | None
    distribution: float | None


def variance_parts(correct: np.ndarray) -> Variance:
    """Split the variance of test accuracy over seeds as Jordan does (2023, arXiv 2304.01910).

    For a run r and an example i let C[r, i] say whether it is right. The variance of the
    accuracy on N examples is the mean of all covariances Cov(C[:, i], C[:, j]). Those with
    i != j average to the variance that would remain on an endless test set, the
    distribution-wise one; the i = j are there because the test set is finite. Hence, with V
    the variance over runs of the accuracy and v[i] that of example i (both with n - 1),

        distribution = N / (N - 1) * (V - sum(v) / N^2),  finite_test_set = V - distribution,

    which is unbiased, and therefore can be below zero where the truth is near zero.

    Args:
        correct: bool (seeds, N).

    Returns:
        The parts; all None below two seeds or two examples.
    """
    seeds, n = correct.shape
    if seeds < 2 or n < 2:
        return {"total": None, "finite_test_set": None, "distribution": None}
    total = correct.mean(axis=1).var(ddof=1)
    single = correct.astype(np.float64).var(axis=0, ddof=1).sum() / n**2
    distribution = n / (n - 1) * (total - single)
    return {
        "total": float(total),
        "finite_test_set": float(total - distribution),
        "distribution": float(distribution),
    }


def first_epoch(values: Sequence[float], threshold: float) -> int | None:
    """First epoch, counted from 1, whose value is at least the threshold; None if none is."""
    return next((epoch for epoch, v in enumerate(values, start=1) if v >= threshold), None)


def area_under_curve(values: ArrayLike) -> float:
    """Mean height of a curve (epochs,) by the trapezoidal rule, in the curve's own unit."""
    x = _sample(values)
    return float(np.trapezoid(x) / (len(x) - 1)) if len(x) > 1 else float(x[0])


def oscillation(losses: ArrayLike, learning_rates: ArrayLike) -> float | None:
    """How much a loss curve wobbles from epoch to epoch: sqrt(mean(second differences^2) / 6).

    The difference of successive changes, l[t-1] - 2 l[t] + l[t+1], is blind to a steady trend,
    so a curve that falls faster does not count as rougher (the mean change would). Of
    independent noise with standard deviation s around a line it has variance 6 s^2, so the
    result estimates s (Gasser, Sroka and Jennen-Steinmetz, Biometrika 73 (1986)). Windows
    with two learning rates are left out, since the fall at a drop is no wobble, and so are
    the first three epochs, where the curve is steep and bent.

    Args:
        losses: (epochs,), in nats.
        learning_rates: (epochs,).

    Returns:
        In nats, or None where no window is left.
    """
    x, rate = _sample(losses), _sample(learning_rates)
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    steady = (rate[:-2] == rate[1:-1]) & (rate[1:-1] == rate[2:])
    kept = second[SETTLING_EPOCHS:][steady[SETTLING_EPOCHS:]]
    return float(np.sqrt(np.mean(kept**2) / 6)) if len(kept) else None


class Bin(TypedDict):
    """Predictions of similar confidence: their mean confidence, accuracy and number."""

    confidence: float | None
    accuracy: float | None
    count: int


def calibration(
    logits: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS
) -> tuple[float, list[Bin]]:
    """Expected calibration error and its bins.

    Guo et al. 2017 (arXiv 1706.04599), equation 3: confidence is the largest softmax
    probability, bin m holds those in ((m - 1) / bins, m / bins], and the error is the mean of
    |accuracy - confidence| over the bins, weighted by their counts.

    Args:
        logits: float (N, classes).
        labels: integers (N,).

    Returns:
        The error, a fraction, and the bins from low to high confidence; those of an empty bin
        are None.
    """
    x = logits.astype(np.float64)
    confidence = 1 / np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1)
    right = x.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    confidences = np.bincount(index, weights=confidence, minlength=bins)
    hits = np.bincount(index, weights=right, minlength=bins)
    error = float(np.abs(hits - confidences).sum() / len(labels))
    rows: list[Bin] = [
        {
            "confidence": float(c / n) if n else None,
            "accuracy": float(h / n) if n else None,
            "count": int(n),
        }
        for c, h, n in zip(confidences, hits, count, strict=True)
    ]
    return error, rows
