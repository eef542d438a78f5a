"""Simulate equivalence tests, Stein's two stages, and studies of equal arms.

Equivalence and Stein's procedure are simulated on paired differences with standard deviation 1.
They are normal, or have a long tail: of gamma distributions, with skewness 1 or 2. Equal arms are
simulated from right and wrong predictions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cifar_jax.study.planning import next_seeds, stein_interval
from cifar_jax.study.samples import accuracy, difference
from cifar_jax.study.statistics import ALPHA, estimate, holm

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

DIFFERENCES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(0.0, 1.0, shape),
    "skewness 1": lambda rng, shape: rng.gamma(4.0, 0.5, shape) - 2.0,
    "skewness 2": lambda rng, shape: rng.gamma(1.0, 1.0, shape) - 1.0,
}
SEEDS = (5, 10)
# In standard deviations of the differences.
MARGINS = (0.5, 1.0, 2.0)
HALF_WIDTHS = (1.0, 0.5, 0.25)
# Studies that stop when the interval is narrow look at up to this many seeds.
MOST_LOOKS = 250


def _share(flags: NDArray[np.bool_]) -> float:
    return round(100 * float(np.mean(flags)), 2)


def equivalence(studies: int) -> list[dict[str, Any]]:
    """Return how often "equivalent within a margin" is wrongly and rightly supported.

    "wrongly supported" is for true differences of plus or minus the margin, whichever share is
    larger. "wrongly not supported" is for differences just inside it.
    """
    rows = []
    for name, draw in DIFFERENCES.items():
        for seeds in SEEDS:
            rng = np.random.default_rng([seeds, *map(ord, name)])
            found = draw(rng, (studies, seeds))
            inner, outer = (
                np.array([estimate(row, level=level).interval for row in found])
                for level in (1 - 2 * ALPHA, 1 - ALPHA)
            )
            for margin in MARGINS:

                def supported(truth: float, ends: Floats = inner, margin: float = margin) -> float:
                    return _share((ends[:, 0] + truth > -margin) & (ends[:, 1] + truth < margin))

                def outside(truth: float, ends: Floats = outer, margin: float = margin) -> float:
                    return _share((ends[:, 0] + truth > margin) | (ends[:, 1] + truth < -margin))

                rows.append(
                    {
                        "differences": name,
                        "seeds": seeds,
                        "margin": margin,
                        "wrongly supported": max(supported(margin), supported(-margin)),
                        "wrongly not supported": max(outside(margin), outside(-margin)),
                        "supported if equal": supported(0.0),
                    }
                )
    return rows


def _stopped_when_narrow(draws: Floats, first: int, half_width: float) -> NDArray[np.bool_]:
    """Return whether the t interval covers 0 if a study stops at the first narrow one."""
    n = np.arange(1, draws.shape[1] + 1)
    mean = np.cumsum(draws, axis=1) / n
    variance = np.cumsum(draws**2, axis=1) / n - mean**2
    half = np.full_like(mean, np.inf)
    half[:, 1:] = special.stdtrit(n[:-1], 0.975) * np.sqrt(np.maximum(variance[:, 1:], 0) / n[:-1])
    narrow = half <= half_width
    narrow[:, : first - 1] = False
    narrow[:, -1] = True
    at = (np.arange(len(draws)), narrow.argmax(axis=1))
    return np.abs(mean[at]) <= half[at]


def two_stages(studies: int) -> list[dict[str, Any]]:
    """Return how often Stein's interval covers the truth, and the seeds that it takes."""
    rows = []
    for name, draw in DIFFERENCES.items():
        for first in SEEDS:
            rng = np.random.default_rng([first, 1, *map(ord, name)])
            for width in HALF_WIDTHS:
                totals, covered = [], []
                for stage in draw(rng, (studies, first)):
                    total = next_seeds(stage.tolist(), first, width)
                    values = np.concatenate([stage, draw(rng, (total - first,))])
                    low, high = stein_interval(values.tolist(), first) or (np.nan, np.nan)
                    assert high - low <= 2 * width * (1 + 1e-9)
                    totals.append(total)
                    covered.append(low <= 0.0 <= high)
                looks = draw(rng, (studies, MOST_LOOKS))
                rows.append(
                    {
                        "differences": name,
                        "first stage": first,
                        "half-width": width,
                        "covered": _share(np.array(covered)),
                        "stopped when narrow, covered": _share(
                            _stopped_when_narrow(looks, first, width)
                        ),
                        "seeds, median": int(np.median(totals)),
                        "seeds, 90 %": int(np.quantile(totals, 0.9)),
                    }
                )
    return rows


def equal_arms(right: list[NDArray[np.bool_]]) -> tuple[bool, bool, bool]:
    """Decide one study of four equal arms, whose predictions are (seeds, images).

    Returns:
        Whether the second arm is better than the first, whether they differ in either direction,
        and whether any of the three arms differs from the first after Holm's correction.
    """
    first, *others = (accuracy(arm.mean(axis=1).tolist(), arm.mean(axis=0)) for arm in right)
    found = [difference(first, other).estimate() for other in others]
    p = [1.0 if one.p is None else one.p for one in found]
    differs = p[0] < ALPHA
    adjusted = [one for one in holm(p) if one is not None]
    return differs and (found[0].mean or 0.0) > 0, differs, min(adjusted) < ALPHA
