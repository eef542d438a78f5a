"""Test metrics compared with the definition, and with PyTorch if it is installed."""

import numpy as np
import pytest
from scipy import special

from cifar_jax.runner.evaluation import evaluate_logits, losses_and_confidences


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return rng.normal(0, 5, (200, 4)).astype(np.float32), rng.integers(0, 3, 200)


def test_counts_by_hand():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0]])
    result = evaluate_logits(logits, np.array([0, 0, 1, 1]))
    assert result.confusion.tolist() == [[1, 1], [1, 1]]
    assert result.accuracy == 0.5
    assert result.correct == 2
    # -log softmax: log(1 + e^-1), log(1 + e), log(1 + e^2), log(1 + e^-9)
    wanted = np.mean(np.log1p(np.exp([-1.0, 1.0, 2.0, -9.0])))
    assert result.loss == pytest.approx(wanted, rel=1e-12)


def test_per_class_accuracy_and_absent_class(case):
    logits, labels = case
    result = evaluate_logits(logits, labels)
    for label in range(3):
        mask = labels == label
        assert result.per_class_accuracy[label] == np.mean(logits[mask].argmax(1) == label)
    assert np.isnan(result.per_class_accuracy[3])
    assert result.confusion.sum() == 200


def test_loss_is_stable_for_huge_logits():
    result = evaluate_logits(np.array([[1e4, -1e4]]), np.array([1]))
    assert result.loss == pytest.approx(2e4)


def test_loss_against_pytorch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    logits, labels = case
    wanted = torch.nn.functional.cross_entropy(
        torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    )
    assert evaluate_logits(logits, labels).loss == pytest.approx(wanted.item(), rel=1e-12)


def test_losses_and_confidences_against_scipy(case):
    logits, labels = case
    losses, confidences = losses_and_confidences(logits, labels)
    exact = logits.astype(np.float64)
    wanted = -special.log_softmax(exact, axis=1)[np.arange(200), labels]
    np.testing.assert_allclose(losses, wanted, rtol=1e-14)
    np.testing.assert_allclose(confidences, special.softmax(exact, axis=1).max(axis=1), rtol=1e-14)
    assert np.isnan(losses_and_confidences(np.array([[np.inf, 0.0]]), np.array([0]))[0])
