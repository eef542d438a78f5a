"""The loss with smoothed and mixed labels against its definition in NumPy, and PyTorch's."""

import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.training.loss import Mixed, count_correct, cross_entropy, training_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 5)).astype(np.float32)
FIRST, SECOND = RNG.integers(0, 5, (2, 12)).astype(np.int32)
LOG_P = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum(1, keepdims=True))
WEIGHT = 0.3
MIXED = Mixed(jnp.float32(WEIGHT), jnp.asarray(SECOND))


def targets(labels: np.ndarray, smoothing: float) -> np.ndarray:
    return (1 - smoothing) * np.eye(5)[labels] + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_loss_is_that_of_its_targets(smoothing: float) -> None:
    expected = -(targets(FIRST, smoothing) * LOG_P).sum(1).mean()
    assert float(cross_entropy(LOGITS, FIRST, smoothing)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_loss_is_pytorchs(smoothing: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(FIRST).long(), label_smoothing=smoothing
    )
    assert float(cross_entropy(LOGITS, FIRST, smoothing)) == pytest.approx(float(expected), 1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_loss_is_that_of_the_mixed_targets(smoothing: float) -> None:
    target = WEIGHT * targets(FIRST, smoothing) + (1 - WEIGHT) * targets(SECOND, smoothing)
    expected = -(target * LOG_P).sum(1).mean()
    found = training_loss(jnp.asarray(LOGITS), jnp.asarray(FIRST), smoothing, MIXED)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_hit_of_either_label_counts_by_its_weight() -> None:
    best = LOGITS.argmax(1)
    expected = WEIGHT * (best == FIRST).sum() + (1 - WEIGHT) * (best == SECOND).sum()
    assert (best == FIRST).sum() != (best == SECOND).sum()
    assert float(count_correct(LOGITS, FIRST, MIXED)) == pytest.approx(expected, rel=1e-5)
    alone = count_correct(LOGITS, FIRST, None)
    assert alone.dtype == jnp.int32
    assert int(alone) == (best == FIRST).sum()
