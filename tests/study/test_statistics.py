"""The statistics against enumeration, closed forms, simulation and other routines of scipy's."""

from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from cifar_jax.study.statistics import (
    bootstrap_interval,
    cohens_dz,
    estimate,
    holm,
    paired_t_power,
    seeds_for_power,
    sign_flip_p,
    standard_deviation,
)

VALUES = [0.781, 0.792, 0.779, 0.788, 0.785]


def binomial_tolerance(share: float, draws: int) -> float:
    """Four standard errors: a right procedure misses by more once in 16,000 seeds."""
    return 4 * sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("too_few", [[], [0.5]])
def test_one_value_has_no_spread(too_few):
    for statistic in (standard_deviation, bootstrap_interval, sign_flip_p, cohens_dz):
        assert statistic(too_few) is None


def test_standard_deviation_by_hand():
    assert standard_deviation([1.0, 2.0, 4.0]) == pytest.approx(sqrt(7 / 3), rel=1e-12)


def test_interval_over_seeds_is_students():
    wanted = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    found = estimate(VALUES)
    assert found.interval == pytest.approx(tuple(wanted), rel=1e-12)
    assert found.rule == "seeds"
    assert found.reason is None


def test_interval_of_differences_is_the_paired_one_with_its_p():
    other = [0.80, 0.83, 0.81, 0.82, 0.80]
    wanted = stats.ttest_rel(other, VALUES)
    found = estimate(np.subtract(other, VALUES))
    assert found.interval == pytest.approx(tuple(wanted.confidence_interval(0.95)), rel=1e-12)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-12)


def test_interval_is_cut_where_the_mean_cannot_be():
    low, high = estimate([1.0, 9.0]).interval
    assert low < 0
    assert estimate([1.0, 9.0], least=0.0, most=8.0).interval == (0.0, 8.0)
    assert estimate([1.0, 9.0], least=0.0).interval == (0.0, high)


def test_interval_over_seeds_covers_95_percent():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    ends = np.array([estimate(row).interval for row in samples])
    covered = np.mean((ends[:, 0] <= 3.0) & (ends[:, 1] >= 3.0))
    assert covered == pytest.approx(0.95, abs=binomial_tolerance(0.95, 2000))


def banerjee(values, images):
    """The interval that counts both errors, by its definition."""
    squares = [stats.sem(x) ** 2 * stats.t.ppf(0.975, len(x) - 1) ** 2 for x in (values, images)]
    half = sqrt(sum(squares))
    return np.mean(values) - half, np.mean(values) + half


def images_with_mean(mean, n):
    """Differences of images in -1, 0, 1 with a given mean."""
    row = np.zeros(n)
    row[: round(n * abs(mean))] = np.sign(mean)
    row[-2:] = 1, -1
    return row


@pytest.mark.parametrize("n", [20, 999])
def test_few_test_images_add_their_error(n):
    images = images_with_mean(0.1, n)
    found = estimate([0.05, 0.15, 0.10], images)
    assert found.rule == "seeds and test images"
    assert found.interval == pytest.approx(banerjee([0.05, 0.15, 0.10], images), rel=1e-9)


def test_with_enough_images_the_seeds_decide_if_they_differ():
    images = images_with_mean(0.1, 1000)
    assert estimate([0.05, 0.15, 0.10], images).rule == "seeds"
    same = estimate([0.1, 0.1, 0.1], images)
    assert same.rule == "seeds and test images"
    half = stats.t.ppf(0.975, 999) * stats.sem(images)
    assert same.interval == pytest.approx((0.1 - half, 0.1 + half))


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_seeds_that_agree_say_no_more_than_seeds_that_nearly_do(seeds):
    """On 20 images a spread below one image cannot be seen."""
    images = images_with_mean(0.1, 20)
    same = np.full(seeds, 0.1)
    nearly = same + np.eye(seeds)[0] / 20
    for values in (same, nearly):
        low, high = estimate(values, images, resolution=1 / 20).interval
        assert high - low == pytest.approx(np.ptp(banerjee(nearly, images)), rel=1e-9)


@pytest.mark.parametrize(
    ("values", "images"),
    [
        ([0.1, 0.1], None),
        ([0.0] * 10, None),
        ([0.1 + 0.2, 0.3, 0.3], None),
        ([0.0, 0.0], np.zeros(20)),
        ([1.0, 1.0, 1.0], np.ones(10_000)),
        ([0.5], np.zeros(20)),
        ([0.0, 1.0], np.array([0.5])),
        ([], None),
    ],
)
def test_without_a_spread_nothing_is_claimed(values, images):
    found = estimate(values, images)
    assert found.interval is found.rule is found.p is None
    assert found.reason
    if len(set(np.round(values, 9))) < 2:
        assert bootstrap_interval(values) is sign_flip_p(values) is cohens_dz(values) is None


@pytest.mark.parametrize("seed", range(40))
def test_p_is_below_5_percent_just_where_the_interval_leaves_out_zero(seed):
    rng = np.random.default_rng(seed)
    n, count = int(rng.integers(2, 6)), int(rng.choice([20, 100, 1000]))
    images = rng.choice([-1.0, 0.0, 1.0], count, p=[0.1, 0.6, 0.3])
    values = rng.choice([0.1, images.mean() + 0.02 * rng.standard_normal()], n)
    found = estimate(values, images)
    assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])
    if 1e-6 < found.p < 1:
        edge = estimate(values, images, level=1 - found.p).interval
        assert min(map(abs, edge)) == pytest.approx(0, abs=1e-9)


def test_p_of_a_tiny_error_and_of_no_difference():
    assert 0 < estimate([0.5, 0.5 + 1e-9], images_with_mean(0.5, 20)).p < 0.01
    assert estimate([0.1, -0.1], images_with_mean(0.0, 20)).p == 1.0
    assert estimate(np.full(9, 0.9) + 1e-9 * np.arange(9)).p < 1e-50


def test_bootstrap_interval_is_that_of_all_resamples():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    means = [np.mean(rows) for rows in product(values, repeat=4)]
    low, high = bootstrap_interval(values, resamples=50_000)
    # The quantiles of 256 equally likely means are steps of at least 0.25.
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.26)
    assert bootstrap_interval(values) == bootstrap_interval(values)


@pytest.mark.parametrize(("n", "nominal"), [(40, 0.94), (5, 0.835)])
def test_bootstrap_interval_covers_what_its_docstring_says(n, nominal):
    """Percentile intervals are too narrow for few values, as theory has it.

    For large resample counts the interval of normal values is close to mean -+ 1.96 s sqrt(
    (n - 1) / n) / sqrt(n), whose coverage the t distribution gives: 0.939 for 40, 0.847 for 5
    values; the lighter tails of the resampled means take a little more off for five.
    """
    samples = np.random.default_rng(3).normal(size=(500, n))
    ends = np.array([bootstrap_interval(row, resamples=500) for row in samples])
    covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    assert covered == pytest.approx(nominal, abs=binomial_tolerance(nominal, 500))


@pytest.mark.parametrize("n", [2, 5, 13])
def test_sign_flip_enumerates_every_sign(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    signs = np.array(list(product([-1, 1], repeat=n)))
    wanted = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    assert sign_flip_p(d) == wanted


def test_sign_flip_of_five_like_signs_is_the_least_possible():
    assert sign_flip_p([0.1, 0.2, 0.3, 0.2, 0.1]) == 2 / 32


def test_sign_flip_counts_ties_despite_rounding():
    assert sign_flip_p([0.1, 0.1, 0.1, -0.1]) == 10 / 16


def test_sign_flip_of_many_differences_agrees_with_the_t_test():
    """For 60 normal differences the two tests are nearly the same."""
    d = np.random.default_rng(5).normal(0, 1, 60)
    d += 0.2 - d.mean()
    wanted = stats.ttest_1samp(d, 0).pvalue
    assert 0.01 < wanted < 0.5
    assert sign_flip_p(d) == pytest.approx(wanted, abs=0.01)
    assert sign_flip_p(d) == sign_flip_p(d)


def test_sign_flip_is_level_under_the_null():
    samples = np.random.default_rng(11).normal(size=(1000, 6))
    p = np.array([sign_flip_p(row) for row in samples])
    # 2 of the 64 assignments: p = 2/64 has probability 2/64 exactly.
    assert np.mean(p <= 2 / 64) == pytest.approx(2 / 64, abs=binomial_tolerance(2 / 64, 1000))


def test_cohens_dz():
    d = np.array([1.0, 2.0, 4.0])
    t = stats.ttest_1samp(d, 0).statistic
    assert cohens_dz(d) == pytest.approx(t / sqrt(3), rel=1e-12)
    assert cohens_dz([0.3, 0.3, 0.1 + 0.2]) is None


@pytest.mark.parametrize(("dz", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_for_power_are_the_tabulated_ones(dz, pairs):
    """Two-sided, alpha 0.05, power 0.8: as G*Power 3 gives (Faul et al. 2007)."""
    assert seeds_for_power(dz) == seeds_for_power(-dz) == pairs


@pytest.mark.parametrize("dz", [1.5, 3.0, 40.0, 1000.0])
def test_seeds_for_power_are_the_least(dz):
    n = seeds_for_power(dz)
    assert paired_t_power(dz, n) >= 0.8
    assert n == 2 or paired_t_power(dz, n - 1) < 0.8


def test_power_without_an_effect_is_alpha():
    assert paired_t_power(0.0, 7) == pytest.approx(0.05, rel=1e-9)


def test_power_by_simulation():
    samples = np.random.default_rng(4).normal(1.2, 1, (20_000, 7))
    share = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05)
    power = paired_t_power(1.2, 7)
    assert share == pytest.approx(power, abs=binomial_tolerance(power, 20_000))


def test_seeds_for_power_without_an_effect():
    assert seeds_for_power(None) is None
    assert seeds_for_power(0.0) is None
    assert seeds_for_power(1e-5) is None


def test_holm():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []
