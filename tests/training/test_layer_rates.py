"""Frozen layers and learning rates of single layers."""

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from cifar_jax.core.optim import Hyper, sgd
from cifar_jax.core.optimizers import adamw
from cifar_jax.methods.layer_rates import LayerRates, matches

PARAMS = {
    "conv1": {"kernel": np.ones((2, 2), np.float32), "bias": np.full(2, 2, np.float32)},
    "norm1": {"scale": np.ones(2, np.float32)},
    "dense": {"kernel": np.full(3, -1, np.float32)},
}
GRADIENTS = jax.tree.map(lambda p: 0.5 * p + 1, PARAMS)
RATES = (("dense", 10.0), ("conv1", 0.1), ("*.bias", 0.0))


def two_steps(rates, rate=0.01):
    """Change of every parameter after two steps, by name."""
    hyper = Hyper(learning_rate=rate)
    optimiser = LayerRates(sgd, rates)(hyper, lambda step: hyper.learning_rate)
    params, state = PARAMS, optimiser.init(PARAMS)
    for _ in range(2):
        updates, state = optimiser.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    return flatten_dict(jax.tree.map(lambda new, old: new - old, params, PARAMS), sep="."), state


def test_a_factor_is_another_learning_rate_and_frozen_is_no_change_at_all():
    found, state = two_steps(RATES)
    plain, _ = two_steps(())
    np.testing.assert_array_equal(found["norm1.scale"], plain["norm1.scale"])
    np.testing.assert_array_equal(found["conv1.bias"], np.zeros(2))
    for name, factor in (("dense.kernel", 10), ("conv1.kernel", 0.1)):
        expected, _ = two_steps((), 0.01 * factor)
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    # Momentum of the trained tensors; the frozen one has none.
    sizes = [leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(sizes) == [2, 3, 4]


def test_the_learning_rate_stays_a_value():
    traced = 0

    @jax.jit
    def change(rate):
        nonlocal traced
        traced += 1
        return two_steps(RATES, rate)[0]["dense.kernel"]

    low, high = change(0.01), change(0.02)
    assert traced == 1
    assert not np.allclose(low, high)


def test_the_last_pattern_that_matches_counts():
    rates = (("*", 3.0), ("conv*", 2.0))
    assert LayerRates(sgd, rates).factor("conv1.kernel") == 2
    assert LayerRates(sgd, rates).factor("dense.kernel") == 3
    assert LayerRates(sgd, rates[1:]).factor("dense.kernel") == 1


def test_a_factor_scales_decoupled_weight_decay_too():
    zero = jax.tree.map(np.zeros_like, PARAMS)
    optimiser = LayerRates(adamw, (("dense", 10),))(Hyper(0.1, 0.9, 0.5), lambda step: 0.1)
    updates, _ = optimiser.update(zero, optimiser.init(PARAMS), PARAMS)
    np.testing.assert_allclose(
        updates["dense"]["kernel"], -10 * 0.1 * 0.5 * PARAMS["dense"]["kernel"]
    )
    np.testing.assert_allclose(updates["norm1"]["scale"], -0.1 * 0.5 * PARAMS["norm1"]["scale"])


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("conv1", "conv1.kernel", True),
        ("conv*", "conv1.kernel", True),
        ("conv1.kernel", "conv1.kernel", True),
        ("*.kernel", "layer1.0.conv1.kernel", True),
        ("layer1", "layer1.0.conv1.kernel", True),
        ("layer1.0", "layer1.0.conv1.kernel", True),
        ("conv*", "layer1.0.conv1.kernel", False),
        ("layer1.0", "layer1.01.conv1.kernel", False),
        ("Conv1", "conv1.kernel", False),
        ("conv[23]", "conv2.bias", True),
        ("kernel", "conv1.kernel", False),
    ],
)
def test_a_pattern_means_a_parameter_or_all_of_a_module(pattern, name, expected):
    assert matches(name, pattern) is expected
