"""Batch Normalization against its definition in NumPy, float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.models.norms import BatchNorm

EPSILON = 1e-5
CHANNELS = 5
VARIABLES = {
    "params": {
        "scale": np.linspace(0.5, 2, CHANNELS, dtype=np.float32),
        "bias": np.linspace(-1, 1, CHANNELS, dtype=np.float32),
    },
    "batch_stats": {
        "mean": np.linspace(-3, 3, CHANNELS, dtype=np.float32),
        "var": np.linspace(0.1, 4, CHANNELS, dtype=np.float32),
    },
}
SHAPES = [(2, CHANNELS), (7, CHANNELS), (3, 4, 2, CHANNELS)]


def draw(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) * [1, 2, 3, 4, 0.1] + 1.5).astype(np.float32)


def apply_in_training(x: np.ndarray) -> tuple[jax.Array, dict[str, Any]]:
    return BatchNorm().apply(VARIABLES, x, train=True, mutable=["batch_stats"])


def standardised(x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    params = VARIABLES["params"]
    x = x.astype(np.float64)
    return (x - mean) / np.sqrt(var + EPSILON) * params["scale"] + params["bias"]


@pytest.mark.parametrize("shape", SHAPES)
def test_training_normalises_by_the_biased_variance_of_the_batch(shape: tuple[int, ...]) -> None:
    x = draw(shape)
    rows = x.reshape(-1, CHANNELS).astype(np.float64)
    expected = standardised(x, rows.mean(0), rows.var(0))
    np.testing.assert_allclose(apply_in_training(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics_take_a_tenth_of_the_mean_and_unbiased_variance(
    shape: tuple[int, ...],
) -> None:
    x = draw(shape)
    rows = x.reshape(-1, CHANNELS).astype(np.float64)
    old = VARIABLES["batch_stats"]
    new = apply_in_training(x)[1]["batch_stats"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


def test_evaluation_uses_the_running_statistics_and_leaves_them() -> None:
    x = draw((7, CHANNELS))
    y, state = BatchNorm().apply(VARIABLES, x, train=False, mutable=["batch_stats"])
    old = VARIABLES["batch_stats"]
    np.testing.assert_allclose(y, standardised(x, old["mean"], old["var"]), rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], old)


@pytest.mark.parametrize("train", [False, True])
def test_initialisation_does_not_count_as_a_batch(train: bool) -> None:
    x = jnp.asarray(draw((7, CHANNELS)))
    stats = BatchNorm().init(jax.random.key(0), x, train=train)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(CHANNELS))
    np.testing.assert_array_equal(stats["var"], np.ones(CHANNELS))


def test_another_momentum_weighs_the_old_value() -> None:
    x = draw((7, CHANNELS))
    norm = BatchNorm(momentum=0.25)
    _, state = norm.apply(VARIABLES, x, train=True, mutable=["batch_stats"])
    expected = 0.25 * VARIABLES["batch_stats"]["mean"] + 0.75 * x.mean(0)
    np.testing.assert_allclose(state["batch_stats"]["mean"], expected, rtol=1e-5)
