"""The statistics against scipy's own routines, enumeration, closed forms and simulation."""

from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
from scipy import stats

from cifar_jax.study.statistics import (
    area_under_curve,
    bootstrap_interval,
    calibration,
    cohens_dz,
    first_epoch,
    holm,
    mcnemar,
    oscillation,
    paired_t_p,
    paired_t_power,
    seeds_for_power,
    sign_flip_p,
    standard_deviation,
    t_interval,
    variance_parts,
)

VALUES = [0.781, 0.792, 0.779, 0.788, 0.785]


def binomial_tolerance(share: float, draws: int) -> float:
    """Four standard errors: a right procedure misses by more once in 16,000 seeds."""
    return 4 * sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("too_few", [[], [0.5]])
def test_one_value_has_no_spread(too_few):
    for statistic in (standard_deviation, t_interval, bootstrap_interval, sign_flip_p, cohens_dz):
        assert statistic(too_few) is None


def test_standard_deviation_by_hand():
    assert standard_deviation([1.0, 2.0, 4.0]) == pytest.approx(sqrt(7 / 3), rel=1e-12)


def test_t_interval_is_scipys():
    wanted = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert t_interval(VALUES) == pytest.approx(tuple(wanted), rel=1e-12)


def test_t_interval_of_differences_is_the_paired_one():
    other = [0.80, 0.83, 0.81, 0.82, 0.80]
    wanted = stats.ttest_rel(other, VALUES).confidence_interval(0.95)
    assert t_interval(np.subtract(other, VALUES)) == pytest.approx(tuple(wanted), rel=1e-12)


def test_t_interval_is_cut_where_the_mean_cannot_be():
    low, high = t_interval([1.0, 9.0])
    assert low < 0
    assert t_interval([1.0, 9.0], least=0.0, most=8.0) == (0.0, 8.0)
    assert t_interval([1.0, 9.0], least=0.0) == (0.0, high)


def test_t_interval_covers_95_percent():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    ends = np.array([t_interval(row) for row in samples])
    covered = np.mean((ends[:, 0] <= 3.0) & (ends[:, 1] >= 3.0))
    assert covered == pytest.approx(0.95, abs=binomial_tolerance(0.95, 2000))


def test_bootstrap_interval_is_that_of_all_resamples():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    means = [np.mean(rows) for rows in product(values, repeat=4)]
    low, high = bootstrap_interval(values, resamples=50_000)
    # The quantiles of 256 equally likely means are steps of at least 0.25.
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.26)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_bootstrap_interval_is_scipys():
    values = np.random.default_rng(1).normal(size=25)
    wanted = stats.bootstrap(
        (values,), np.mean, method="percentile", random_state=2, n_resamples=20_000
    ).confidence_interval
    # Monte Carlo error of the end of the interval: density there is about 0.06 / 0.2.
    assert bootstrap_interval(values) == pytest.approx(tuple(wanted), abs=0.03)


@pytest.mark.parametrize(("n", "nominal"), [(40, 0.94), (5, 0.835)])
def test_bootstrap_interval_covers_what_its_docstring_says(n, nominal):
    """Percentile intervals are too narrow for few values, as theory has it.

    For large resample counts the interval of normal values is close to mean -+ 1.96 s sqrt(
    (n - 1) / n) / sqrt(n), whose coverage the t distribution gives: 0.939 for 40, 0.847 for 5
    values; the lighter tails of the resampled means take a little more off for five.
    """
    samples = np.random.default_rng(3).normal(size=(2000, n))
    ends = np.array([bootstrap_interval(row, resamples=500) for row in samples])
    covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    assert covered == pytest.approx(nominal, abs=binomial_tolerance(nominal, 2000))


@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flip_enumerates_every_sign(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    signs = np.array(list(product([-1, 1], repeat=n)))
    wanted = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    assert sign_flip_p(d) == wanted


def test_sign_flip_is_scipys_permutation_test():
    d = np.random.default_rng(7).normal(0.4, 1, 8)
    wanted = stats.permutation_test(
        (d, np.zeros(8)), lambda a, b: np.mean(a - b), permutation_type="samples"
    ).pvalue
    assert sign_flip_p(d) == pytest.approx(wanted, rel=1e-12)


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
    samples = np.random.default_rng(11).normal(size=(2000, 6))
    p = np.array([sign_flip_p(row) for row in samples])
    # 2 of the 64 assignments: p = 2/64 has probability 2/64 exactly.
    assert np.mean(p <= 2 / 64) == pytest.approx(2 / 64, abs=binomial_tolerance(2 / 64, 2000))


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


def test_mcnemar_by_counting():
    first = np.array([1] * 20 + [1] * 3 + [0] * 11 + [0] * 6, bool)
    second = np.array([1] * 20 + [0] * 3 + [1] * 11 + [0] * 6, bool)
    wanted = 2 * sum(comb(14, k) for k in range(4)) / 2**14
    result = mcnemar(first, second)
    assert (result["only_first"], result["only_second"]) == (3, 11)
    assert result["p"] == pytest.approx(wanted, rel=1e-12)


def test_mcnemar_of_equal_predictions():
    right = np.array([True, False, True])
    assert mcnemar(right, right) == {"only_first": 0, "only_second": 0, "p": 1.0}


def test_variance_parts_are_means_of_covariances():
    correct = np.random.default_rng(2).random((6, 30)) < 0.7
    covariance = np.cov(correct.T.astype(float))
    off = covariance[~np.eye(30, dtype=bool)].mean()
    parts = variance_parts(correct)
    assert parts["total"] == pytest.approx(covariance.mean(), rel=1e-9)
    assert parts["distribution"] == pytest.approx(off, rel=1e-9, abs=1e-15)
    assert parts["finite_test_set"] + parts["distribution"] == pytest.approx(parts["total"])


def test_variance_parts_are_unbiased():
    """Runs whose true accuracy varies by a known amount, on test sets of known size.

    Each run is right on every example with its own probability q, so the distribution-wise
    variance is that of q, here uniform on [0.6, 0.8].
    """
    rng = np.random.default_rng(6)
    q = rng.uniform(0.6, 0.8, (2000, 5, 1))
    correct = rng.random((2000, 5, 40)) < q
    found = np.array([variance_parts(c)["distribution"] for c in correct])
    standard_error = found.std() / sqrt(2000)
    assert found.mean() == pytest.approx(0.2**2 / 12, abs=4 * standard_error)
    # Not met by the plain variance over runs, which also holds the test set's part.
    plain = correct.mean(axis=2).var(axis=1, ddof=1).mean()
    assert plain > 0.2**2 / 12 + 10 * standard_error


def test_variance_parts_of_one_seed():
    parts = variance_parts(np.ones((1, 10), bool))
    assert set(parts.values()) == {None}


def test_first_epoch():
    assert first_epoch([0.4, 0.6, 0.5, 0.7], 0.6) == 2
    assert first_epoch([0.4, 0.6], 0.61) is None


def test_area_under_curve():
    assert area_under_curve([0.7] * 5) == pytest.approx(0.7)
    assert area_under_curve([0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert area_under_curve([0.3]) == 0.3


def test_oscillation_estimates_the_noise_and_ignores_trend_and_drops():
    epochs = np.arange(30)
    rate = 0.01 * 0.1 ** (epochs // 10)
    line = 2 - 0.02 * epochs - 0.4 * (epochs // 10)
    assert oscillation(line, rate) == pytest.approx(0, abs=1e-12)
    noise = np.random.default_rng(8).normal(0, 0.03, (4000, 30))
    squares = [oscillation(line + row, rate) ** 2 for row in noise]
    assert np.mean(squares) == pytest.approx(0.03**2, rel=0.05)


def test_oscillation_sees_a_drop_that_the_learning_rate_does_not_explain():
    losses = np.where(np.arange(30) < 15, 1.0, 0.5)
    assert oscillation(losses, np.full(30, 0.01)) > 0.05


def test_oscillation_of_a_steep_start_is_small():
    """A curve that falls faster at first must not count as rough."""
    losses = 1 + np.exp(-np.arange(30) / 2)
    assert oscillation(losses, np.full(30, 0.01)) < 0.01


def test_oscillation_needs_epochs():
    assert oscillation([3.0, 2.0, 1.0, 0.5], [0.1] * 4) is None
    assert oscillation([1.0], [0.1]) is None


def test_calibration_by_hand():
    def logits(p: float) -> list[float]:
        return [np.log(p), np.log(1 - p)]

    # Confidences 0.9, 0.9, 0.6, 0.6; right, wrong, right, right.
    x = np.array([logits(0.9), logits(0.9), logits(0.6), logits(0.4)])
    error, rows = calibration(x, np.array([0, 1, 0, 1]), bins=10)
    assert error == pytest.approx(0.5 * abs(0.5 - 0.9) + 0.5 * abs(1.0 - 0.6), rel=1e-9)
    assert [row["count"] for row in rows].count(0) == 8
    assert rows[0] == {"confidence": None, "accuracy": None, "count": 0}


def test_calibration_against_the_definition():
    rng = np.random.default_rng(9)
    x = rng.normal(0, 2, (500, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 500)
    probabilities = np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    wanted = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            wanted += inside.sum() / 500 * gap
    error, rows = calibration(x, labels)
    assert error == pytest.approx(wanted, rel=1e-9)
    assert sum(row["count"] for row in rows) == 500


def test_a_confidence_between_two_bins_belongs_to_the_lower():
    """The bins are open below and closed above, as in the paper."""
    _, rows = calibration(np.zeros((1, 2)), np.array([0]), bins=2)
    assert [row["count"] for row in rows] == [1, 0]


def test_calibration_of_certain_predictions():
    """A confidence of exactly 1 belongs to the last bin."""
    error, rows = calibration(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    assert error == 0.5
    assert rows[-1] == {"confidence": 1.0, "accuracy": 0.5, "count": 2}


def test_paired_t_p_is_scipys():
    d = [0.2, 0.5, -0.1, 0.4]
    assert paired_t_p(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert paired_t_p([0.3]) is None
    assert paired_t_p([0.3, 0.3]) is None
    assert paired_t_p([0.0, 0.0]) == 1.0


def test_holm():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []
