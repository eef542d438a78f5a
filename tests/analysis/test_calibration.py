"""Calibration errors and the temperature, against loops, scikit-learn and closed forms."""

import itertools

import numpy as np
import pytest
from scipy import optimize, special

from cifar_jax.analysis import calibration


@pytest.fixture(scope="module")
def made_up():
    """Overconfident logits of 600 images of four classes, and labels."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(600, 4))
    labels = np.array([rng.choice(4, p=row) for row in special.softmax(logits / 1.7, axis=1)])
    return logits, labels


def by_hand(confidence, right, edges):
    """The calibration error with bins (low, high], by loops."""
    error = 0.0
    for low, high in itertools.pairwise(edges):
        members = [i for i, c in enumerate(confidence) if low < c <= high]
        if members:
            accuracy = sum(bool(right[i]) for i in members) / len(members)
            mean = sum(float(confidence[i]) for i in members) / len(members)
            error += len(members) / len(confidence) * abs(accuracy - mean)
    return error


def test_equal_width_and_classwise_by_hand(made_up):
    logits, labels = made_up
    found = calibration.errors_of(logits, labels, 15)
    p = special.softmax(logits, axis=1)
    edges = np.linspace(0, 1, 16)
    right = p.argmax(axis=1) == labels
    assert found.equal_width == pytest.approx(by_hand(p.max(axis=1), right, edges), abs=1e-12)
    classes = [by_hand(p[:, k], labels == k, edges) for k in range(4)]
    assert found.classwise == pytest.approx(np.mean(classes), abs=1e-12)


def test_equal_mass_by_hand(made_up):
    logits, labels = made_up
    p = special.softmax(logits, axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    order = sorted(range(600), key=lambda i: confidence[i])
    error = 0.0
    for start in range(0, 600, 40):  # 15 bins of 40 images
        part = order[start : start + 40]
        error += 40 / 600 * abs(np.mean(right[part]) - np.mean(confidence[part]))
    assert calibration.equal_mass_error(confidence, right, 15) == pytest.approx(error, abs=1e-12)


def test_curve_agrees_with_scikit_learn(made_up):
    sklearn = pytest.importorskip("sklearn.calibration")
    logits, labels = made_up
    p = special.softmax(logits, axis=1)
    accuracy, confidence = sklearn.calibration_curve(
        p.argmax(axis=1) == labels, p.max(axis=1), n_bins=15
    )
    curve = calibration.errors_of(logits, labels, 15).curve
    full = [i for i, n in enumerate(curve.count) if n]
    assert [curve.accuracy[i] for i in full] == pytest.approx(accuracy, abs=1e-12)
    assert [curve.confidence[i] for i in full] == pytest.approx(confidence, abs=1e-12)


def test_scores_agree_with_scikit_learn(made_up):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = made_up
    p = special.softmax(logits, axis=1)
    found = calibration.errors_of(logits, labels, 15)
    assert found.nll == pytest.approx(metrics.log_loss(labels, p), abs=1e-12)
    each = [metrics.brier_score_loss(labels == k, p[:, k]) for k in range(4)]
    assert found.brier == pytest.approx(sum(each), abs=1e-12)


def test_temperature_is_the_minimum_that_another_method_finds(made_up):
    logits, labels = made_up

    def loss(inverse):  # by logarithms of sums, in the inverse temperature
        z = logits * inverse[0]
        return np.mean(special.logsumexp(z, axis=1) - z[np.arange(600), labels])

    found = optimize.minimize(loss, [1.0], method="BFGS", tol=1e-10)
    temperature = calibration.fit_temperature(logits, labels)
    assert temperature == pytest.approx(1 / found.x[0], rel=1e-4)
    assert temperature == pytest.approx(1.7, rel=0.15)  # labels were drawn at 1.7


def test_temperature_of_two_classes_has_a_closed_form():
    """Logits (a, 0), and class 0 in a share q of the images: a / T = log(q / (1 - q))."""
    logits = np.tile([4.0, 0.0], (10, 1))
    labels = np.array([0] * 8 + [1] * 2)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(4 / np.log(0.8 / 0.2), rel=1e-5)


def test_perfect_and_confidently_wrong_predictions():
    logits = np.array([[50.0, 0.0], [0.0, 50.0]])
    right = calibration.errors_of(logits, np.array([0, 1]), 15)
    wrong = calibration.errors_of(logits, np.array([1, 0]), 15)
    assert (right.equal_width, right.equal_mass, right.brier) == pytest.approx((0, 0, 0))
    assert (wrong.equal_width, wrong.equal_mass, wrong.brier) == pytest.approx((1, 1, 2))
    assert wrong.nll == pytest.approx(50)
