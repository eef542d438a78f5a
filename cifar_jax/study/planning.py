"""How many seeds a study needs, and what a number of seeds can show.

Everything is about paired differences, one per seed, that are normal with standard deviation `std`.
Amounts and deviations have one unit, whatever it is.

**Stein's two-stage procedure** (C. Stein, "A two-sample test for a linear hypothesis whose power
is independent of the variance", Annals of Mathematical Statistics 16 (1945), 243-258). Train n0
seeds, compute their standard deviation s0, then train until there are

    N = max(n0, ceil((t(n0 - 1) s0 / h)^2))

seeds. The 95 % interval is mean +- t(n0 - 1) s0 / sqrt(N). Its mean is that of all N, its s0 that
of the first stage. So it is at most h wide on each side. Its coverage is exactly 95 % or more,
because the mean of normal differences is independent of s0. Looking at the interval after every
seed, and stopping when it is narrow, has no such guarantee. `benchmarks/coverage.py` measures it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from cifar_jax.errors import UserError
from cifar_jax.study.statistics import (
    ALPHA,
    LEVEL,
    MOST_SEEDS,
    POWER,
    ROUNDING,
    Interval,
    paired_t_power,
    seeds_for_power,
    standard_deviation,
)

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def seeds_needed(
    difference: float, std: float, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Return the least number of seeds that find a true difference with probability `power`.

    By the two-sided paired t test. None if it takes more than a million.
    """
    if std <= 0:
        raise ValueError(f"std={std} is not above 0")
    return seeds_for_power(difference / std, power, alpha)


def smallest_difference(
    std: float, seeds: int, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """Return the true difference that `seeds` seeds find with probability `power`.

    None below two seeds.
    """
    if seeds < 2:
        return None

    def gap(dz: float) -> float:
        return paired_t_power(dz, seeds, alpha) - power

    most = 1.0
    while gap(most) < 0:
        most *= 2
    return float(std * optimize.brentq(gap, 0.0, most))


def half_width(std: float, seeds: int, level: float = LEVEL) -> float | None:
    """Return half the width of the paired t interval of `seeds` seeds. None below two."""
    if seeds < 2:
        return None
    return float(special.stdtrit(seeds - 1, (1 + level) / 2) * std / math.sqrt(seeds))


def seeds_for_half_width(std: float, most: float, level: float = LEVEL) -> int | None:
    """Return the least number of seeds whose interval is at most `most` wide on each side.

    If the deviation is `std`. None if it takes more than a million.
    """
    return _fewest(lambda n: (half_width(std, n, level) or math.inf) <= most)


def equivalence_power(
    within: float, std: float, seeds: int, difference: float = 0.0, alpha: float = ALPHA
) -> float:
    """Return the probability that two one-sided tests show a difference below `within`.

    They do if |mean| < within - t s / sqrt(n). Mean and s are independent, so this is the normal
    probability of that range, averaged over the distribution of s.

    Args:
        within: amount of the claim.
        std: standard deviation of the differences.
        seeds: at least 2.
        difference: the true one.
        alpha: of each of the two tests.
    """
    freedom, error = seeds - 1, std / math.sqrt(seeds)
    t = special.stdtrit(freedom, 1 - alpha)
    # Above this quantile of s no mean is small enough.
    last = stats.chi2.cdf(freedom * (within / (t * error)) ** 2, freedom)
    share = last * (_NODES + 1) / 2
    room = within - t * error * np.sqrt(stats.chi2.ppf(share, freedom) / freedom)
    inside = special.ndtr((room - difference) / error) - special.ndtr((-room - difference) / error)
    return float(last / 2 * np.sum(_WEIGHTS * inside))


def seeds_for_equivalence(
    within: float,
    std: float,
    difference: float = 0.0,
    power: float = POWER,
    alpha: float = ALPHA,
) -> int | None:
    """Return the least number of seeds for `equivalence_power`. None above a million."""
    return _fewest(lambda n: equivalence_power(within, std, n, difference, alpha) >= power)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    numbers = range(2, MOST_SEEDS + 1)
    at = bisect_left(numbers, True, key=enough)
    return numbers[at] if at < len(numbers) else None


def largest_likely_std(std: float, seeds: int, level: float = POWER) -> float:
    """Return the upper limit of the true deviation, one-sided, from that of `seeds` seeds.

    R. H. Browne, "On the use of a pilot sample for sample size determination", Statistics in
    Medicine 14 (1995), 1933-1940. A plan with this limit has its power with probability `level`.
    """
    freedom = seeds - 1
    return float(std * math.sqrt(freedom / stats.chi2.ppf(1 - level, freedom)))


def next_seeds(
    differences_so_far: Sequence[float],
    first_stage: int,
    half_width: float,
    level: float = LEVEL,
) -> int:
    """Return how many seeds a study has in total by Stein's procedure.

    Call it before training, and again after the first stage. The answer does not change later:
    only the first `first_stage` differences decide it.

    Args:
        differences_so_far: one per seed pair, in the order of the study's seeds.
        first_stage: seeds of the first stage, at least 2. Five or more are wise. With
            two, N is about 40 times the seeds that a known deviation would need. With five, it is
            twice as many.
        half_width: wanted half-width of the interval, in the unit of the differences, above 0.
        level: of the interval.

    Returns:
        `first_stage` if it is not complete, else N. If the first differences are all equal, they
        show no spread and N is `first_stage`.

    Raises:
        UserError: a number is not allowed, or N is more than a million.
    """
    if first_stage < 2:
        raise UserError(f"first stage of {first_stage} seeds: has no deviation; allowed: 2 or more")
    if not (math.isfinite(half_width) and half_width > 0):
        raise UserError(f"half-width {half_width}: is not a number above 0")
    if len(differences_so_far) < first_stage:
        return first_stage
    ratio = _quantile(first_stage, level) * _first_std(differences_so_far, first_stage) / half_width
    if ratio**2 > MOST_SEEDS:
        raise UserError(
            f"half-width {half_width:g}: takes more than {MOST_SEEDS:,} seeds; with the deviation "
            f"of the first {first_stage}, allowed: {ratio * half_width / math.sqrt(MOST_SEEDS):.2g}"
            " or more"
        )
    return max(first_stage, math.ceil(ratio**2 * (1 - ROUNDING)))  # rounding adds no seed


def stein_interval(
    differences: Sequence[float], first_stage: int, level: float = LEVEL
) -> Interval | None:
    """Return the interval for the mean after both stages of Stein's procedure.

    Args:
        differences: one per seed pair, in the order of the study's seeds.
        first_stage: see `next_seeds`.
        level: of confidence.

    Returns:
        Its ends, or None if the first stage is not complete or has no spread.
    """
    if first_stage < 2 or len(differences) < first_stage:
        return None
    std = _first_std(differences, first_stage)
    if std <= ROUNDING * max(1.0, float(np.abs(differences).max())):
        return None
    half = _quantile(first_stage, level) * std / math.sqrt(len(differences))
    mean = float(np.mean(differences))
    return mean - half, mean + half


def _first_std(differences: ArrayLike, first_stage: int) -> float:
    return standard_deviation(np.asarray(differences, np.float64)[:first_stage]) or 0.0


def _quantile(first_stage: int, level: float) -> float:
    return float(special.stdtrit(first_stage - 1, (1 + level) / 2))
