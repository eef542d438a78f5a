"""Measures of runs, compared with scipy's routines, closed forms and simulation."""

from math import comb, sqrt

import numpy as np
import pytest

from cifar_jax.runner.evaluation import losses_and_confidences
from cifar_jax.study.measures import (
    area_under_curve,
    bin_rows,
    bin_sums,
    calibration_error,
    first_epoch,
    mcnemar,
    oscillation,
    variance_parts,
)


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
    # The plain variance over runs also includes the test set's part.
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


def bins_of(logits, labels, **options):
    confidences = losses_and_confidences(logits, np.asarray(labels))[1]
    return bin_sums(confidences, logits.argmax(axis=1) == labels, **options)


def test_calibration_by_hand():
    def logits(p: float) -> list[float]:
        return [np.log(p), np.log(1 - p)]

    # Confidences 0.9, 0.9, 0.6, 0.6; right, wrong, right, right.
    x = np.array([logits(0.9), logits(0.9), logits(0.6), logits(0.4)])
    sums = bins_of(x, [0, 1, 0, 1], bins=10)
    rows = bin_rows(sums)
    assert calibration_error(sums) == pytest.approx(
        0.5 * abs(0.5 - 0.9) + 0.5 * abs(1.0 - 0.6), rel=1e-9
    )
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
    sums = bins_of(x, labels)
    assert calibration_error(sums) == pytest.approx(wanted, rel=1e-9)
    assert sum(row["count"] for row in bin_rows(sums)) == 500
    parts = bins_of(x[:200], labels[:200]) + bins_of(x[200:], labels[200:])
    np.testing.assert_allclose(parts, sums, rtol=1e-12)


def test_a_confidence_between_two_bins_belongs_to_the_lower():
    """The bins are open below and closed above, as in the paper."""
    rows = bin_rows(bins_of(np.zeros((1, 2)), [0], bins=2))
    assert [row["count"] for row in rows] == [1, 0]


def test_calibration_of_certain_predictions():
    """A confidence of exactly 1 belongs to the last bin."""
    sums = bins_of(np.array([[1e4, 0.0], [0.0, 1e4]]), [0, 0])
    assert calibration_error(sums) == 0.5
    assert bin_rows(sums)[-1] == {"confidence": 1.0, "accuracy": 0.5, "count": 2}
