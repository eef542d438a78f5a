"""What a study may conclude: intervals, tests and effect sizes. Pure functions of arrays.

The sample is one value per seed, or one difference per seed pair, so n is small: 3 to 20. Where a
sample is too small for a statistic, or has no spread, the answer is None, never zero.

**The interval rule.** The 95 % interval is Student's t interval over the seeds, paired for a
difference. It says how the mean would change with networks that are trained again and tested on
these images. The seeds alone decide if there are at least 1,000 test images and the seeds differ.
With fewer images, or with seeds that all give the same value, the error of the test images counts
too. Banerjee's conservative interval for sums of means adds it (S. K. Banerjee, "Approximate
confidence interval for linear functions of means of k populations when the population variances
are not equal", Sankhya 22 (1960), 357-358):

    half width^2 = t(n - 1)^2 s_seeds^2 / n + t(N - 1)^2 s_images^2 / N

Here n is the number of seeds and s_seeds the standard deviation of their values. N is the number
of test images. s_images is the standard deviation of the values of the images, each averaged over
the seeds. N images cannot show a spread of the seeds below one image. So seeds that all give the
same accuracy count as if one of them had one image more right: s_seeds = 1 / (N sqrt(n)).
Otherwise two seeds that happen to agree would give a narrower interval than two that nearly do.

There is no interval, and the answer is "undecided", in three cases:

- There is one seed.
- Neither seeds nor images have a spread.
- A value without images, such as a time, has none.

`benchmarks/coverage.py` measures how often the interval covers the truth.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

Interval = tuple[float, float]
Rule = Literal["seeds", "seeds and test images"]

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
# With fewer test images, or none of a value's own, an interval includes the images' error.
ENOUGH_IMAGES = 1_000
# With more seeds than these, nothing is resampled: it takes minutes and differs little from
# Student's t. Pages count and summarise such seeds instead of listing them.
MANY_SEEDS = 200
# Spreads below this are rounding: of fractions, nats and seconds.
ROUNDING = 1e-12
# Above this, "how many seeds" is answered with None.
MOST_SEEDS = 1_000_000

ONE_SEED = "one seed gives no interval"
NO_SPREAD = "all seeds give the same value, so there is no spread and no interval"


def _sample(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float64)


def _varies(x: np.ndarray) -> bool:
    """Whether values differ by more than rounding."""
    return len(x) > 1 and bool(np.ptp(x) > ROUNDING * max(1.0, np.abs(x).max()))


def standard_deviation(values: ArrayLike) -> float | None:
    """Sample standard deviation (n - 1 in the denominator) of (n,); None below two values."""
    x = _sample(values)
    return float(x.std(ddof=1)) if len(x) > 1 else None


@dataclass(frozen=True)
class Error:
    """One part of the error of a mean: its variance, and the degrees of freedom of that."""

    variance: float
    freedom: int

    @classmethod
    def of(cls, x: np.ndarray) -> "Error":
        """Of the mean of independent values (n,)."""
        return cls(float(x.var(ddof=1)) / len(x) if _varies(x) else 0.0, len(x) - 1)


def _half_width(errors: Sequence[Error], alpha: float) -> float:
    """Half the width of the interval with level 1 - alpha: Banerjee's, of one error Student's."""
    quantiles = [special.stdtrit(error.freedom, 1 - alpha / 2) for error in errors]
    squares = [t**2 * e.variance for t, e in zip(quantiles, errors, strict=True) if e.variance]
    return float(np.sqrt(sum(squares)))


@dataclass(frozen=True)
class Estimate:
    """A mean, and what the interval rule says about it.

    Attributes:
        mean: None without a value.
        interval: None if none can be computed.
        rule: which errors the interval counts; None without an interval.
        reason: why there is no interval; None where there is one.
        errors: of the seeds, then of the test images if they have any.
    """

    mean: float | None
    interval: Interval | None
    rule: Rule | None
    reason: str | None
    errors: tuple[Error, ...]

    @property
    def p(self) -> float | None:
        """The p-value of "the mean is 0"; see `p_of`."""
        return self.p_of(0.0)

    def p_of(self, bound: float) -> float | None:
        """Two-sided p-value of "the mean is `bound`".

        It is below 0.05 just where the 95 % interval leaves out the bound: the alpha at which the
        interval of level 1 - alpha ends there. With the seeds alone that is the paired t test's.
        None without an interval.
        """
        if self.interval is None or self.mean is None:
            return None
        counted = self.errors[: 1 if self.rule == "seeds" else 2]
        distance = abs(self.mean - bound)
        if distance <= ROUNDING:
            return 1.0
        alone = [
            2 * stats.t.sf(distance / np.sqrt(error.variance), error.freedom)
            for error in counted
            if error.variance
        ]
        if len(alone) == 1:
            return float(alone[0])
        least = max(*alone, 1e-300)  # a second error makes the interval wider, never narrower

        def beyond(logarithm: float) -> float:
            return _half_width(counted, np.exp(logarithm)) - distance

        if beyond(np.log(least)) <= 0:
            return float(least)
        return float(np.exp(optimize.brentq(beyond, np.log(least), 0.0)))

    def equivalence_p(self, within: float) -> float | None:
        """P-value of "the mean is at least `within` from 0", by two one-sided tests.

        It is the larger of the two (Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987), 657-680),
        so it is below 0.05 just where the 90 % interval is inside -within to +within. None without
        an interval.
        """
        p = self.p_of(within), self.p_of(-within)
        if self.mean is None or p[0] is None or p[1] is None:
            return None
        below = p[0] / 2 if self.mean < within else 1 - p[0] / 2
        above = p[1] / 2 if self.mean > -within else 1 - p[1] / 2
        return max(below, above)


def estimate(
    values: ArrayLike,
    images: ArrayLike | None = None,
    least: float = -np.inf,
    most: float = np.inf,
    resolution: float = 0.0,
    level: float = LEVEL,
) -> Estimate:
    """The mean of one value per seed, with its interval by the rule of this module.

    Args:
        values: (n,), one per seed, or one difference per seed pair.
        images: (N,), the same of each test image, averaged over the seeds. None for a value
            that no test images decide.
        least, most: what the mean cannot be below or above. The interval is cut there.
        resolution: by how much one test image changes a value.
        level: of confidence.
    """
    x = _sample(values)
    errors: tuple[Error, ...] = (Error.of(x),) if len(x) > 1 else ()
    rule: Rule = "seeds"
    if images is not None and errors:
        per_image = _sample(images)
        if len(per_image) > 1:
            errors = (*errors, Error.of(per_image))
        if len(per_image) < ENOUGH_IMAGES or not errors[0].variance:
            rule = "seeds and test images"
    mean = float(x.mean()) if len(x) else None
    counted = errors[: 1 if rule == "seeds" else 2]
    if mean is None or not errors:
        return Estimate(mean, None, None, ONE_SEED, errors)
    if rule == "seeds and test images" and len(counted) < 2:
        return Estimate(mean, None, None, "one test image gives no interval", errors)
    if not any(error.variance for error in counted):
        return Estimate(mean, None, None, NO_SPREAD, errors)
    if not errors[0].variance:
        errors = (Error((resolution / len(x)) ** 2, len(x) - 1), *errors[1:])
        counted = errors
    half = _half_width(counted, 1 - level)
    interval = max(mean - half, least), min(mean + half, most)
    return Estimate(mean, interval, rule, None, errors)


def bootstrap_interval(
    values: ArrayLike, level: float = LEVEL, resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval for the mean; the same values give the same interval.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Percentile and
    not BCa: BCa's correction is estimated from the jackknife of a handful of seeds, where it
    is mostly noise. It assumes no distribution, but is too narrow below about ten values (five
    values: about 83 % instead of 95 %), so verdicts rest on `estimate`.

    Args:
        values: (n,).

    Returns:
        Its ends, or None without a spread or with more than `MANY_SEEDS` values.
    """
    x = _sample(values)
    if not _varies(x) or len(x) > MANY_SEEDS:
        return None
    low, high = stats.bootstrap(
        (x,),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)


def sign_flip_p(differences: ArrayLike, draws: int = 9_999, seed: int = 0) -> float | None:
    """Two-sided p-value of the sign-flip permutation test that the differences centre on 0.

    The share of the 2^n assignments of signs whose sum is at least as far from 0 as the observed
    one. All of them are enumerated if they are at most `draws`, so up to 13 differences (Fisher,
    The Design of Experiments (1935), section 21). With more differences, `draws` random ones and
    the observed one are counted. That keeps the test valid (Phipson and Smyth 2010, arXiv
    1603.05766); its standard error is 0.002 at p = 0.05. With n differences p cannot be below
    2^(1 - n): 0.0625 for five.

    Args:
        differences: (n,).

    Returns:
        p, or None where the differences have no spread or are more than `MANY_SEEDS`.
    """
    d = _sample(differences)
    if not _varies(d) or len(d) > MANY_SEEDS:
        return None
    # Sums of the same numbers in another order may differ in the last bits.
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()

    def as_far(flipped: np.ndarray, axis: int) -> np.ndarray:
        far: np.ndarray = np.abs(flipped.sum(axis=axis)) >= observed
        return far.astype(float)

    found = stats.permutation_test(
        (d,),
        as_far,
        permutation_type="samples",
        n_resamples=draws,
        alternative="greater",
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted so that the chance of any false discovery among them stays below alpha.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979). The k-th smallest of m is multiplied by m - k + 1. The results are made
    increasing and cut at 1. This holds for any dependence, so also for differences that share an
    arm.

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

    Cohen, Statistical Power Analysis (1988), section 2.3. None without a spread.
    """
    d = _sample(differences)
    return float(d.mean() / d.std(ddof=1)) if _varies(d) else None


def paired_t_power(dz: float, n: int, alpha: float = ALPHA) -> float:
    """Power of the two-sided paired t test with n pairs, if the true effect is `dz`.

    The t statistic has n - 1 degrees of freedom and noncentrality dz * sqrt(n).
    """
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = abs(dz) * np.sqrt(n)
    # scipy gives nan for some probabilities of the other side that are below 1e-16.
    other_side = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
    return float(stats.nct.sf(critical, n - 1, shift) + other_side)


def seeds_for_power(dz: float | None, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Least number of seed pairs with which the paired t test reaches `power`.

    None without an effect size, or if it takes more than a million.
    """
    if dz is None:
        return None
    pairs = range(2, MOST_SEEDS + 1)
    at = bisect_left(pairs, power, key=lambda n: paired_t_power(dz, n, alpha))
    return pairs[at] if at < len(pairs) else None
