"""Frozen layers and learning rates of their own."""

import jax
import numpy as np
import optax
import pytest

from cifar_jax.errors import UserError
from cifar_jax.models.paths import named_leaves
from cifar_jax.training.layerwise import (
    check_patterns,
    layerwise,
    parse_patterns,
    parse_rates,
    rate_of,
)
from cifar_jax.training.optimizer import Hyperparams, sgd

PARAMS = {
    "conv1": {"kernel": np.ones((2, 2), np.float32), "bias": np.full(2, 2, np.float32)},
    "norm1": {"scale": np.ones(2, np.float32)},
    "dense": {"kernel": np.full(3, -1, np.float32)},
}
GRADIENTS = jax.tree.map(lambda p: 0.5 * p + 1, PARAMS)
RATES = (("dense", 10.0), ("conv1", 0.1), ("*.bias", 0.0))


def two_steps(rates, rate=0.01):
    """Change of every parameter after two steps, by name."""
    hyper = Hyperparams(learning_rate=rate)
    optimiser = layerwise(sgd(hyper, lambda step: hyper.learning_rate), rates)
    params, state = PARAMS, optimiser.init(PARAMS)
    for _ in range(2):
        updates, state = optimiser.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    return named_leaves(jax.tree.map(lambda new, old: new - old, params, PARAMS)), state


def test_without_rates_the_optimiser_is_the_same_object():
    base = optax.sgd(0.1)
    assert layerwise(base, ()) is base


def test_a_factor_is_another_learning_rate_and_frozen_is_no_change_at_all():
    found, state = two_steps(RATES)
    plain, _ = two_steps(())
    np.testing.assert_array_equal(found["norm1.scale"], plain["norm1.scale"])
    np.testing.assert_array_equal(found["conv1.bias"], np.zeros(2))
    for name, factor in (("dense.kernel", 10), ("conv1.kernel", 0.1)):
        expected, _ = two_steps((), 0.01 * factor)
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    # Momentum of the four trained tensors less the frozen one; nothing is kept for that.
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
    assert rate_of("conv1.kernel", rates) == 2
    assert rate_of("dense.kernel", rates) == 3
    assert rate_of("dense.kernel", rates[1:]) == 1


def test_texts():
    assert parse_patterns(None, "--freeze") == parse_patterns("none", "--freeze") == ()
    assert parse_patterns("conv*, norm1", "--freeze") == ("conv*", "norm1")
    assert parse_rates("dense*=10, conv1=0.1", "--x") == (("dense*", 10.0), ("conv1", 0.1))


@pytest.mark.parametrize("text", ["conv*,", ",", " "])
def test_empty_patterns_are_refused(text):
    with pytest.raises(UserError, match="a pattern is empty"):
        parse_patterns(text, "--freeze")


@pytest.mark.parametrize("text", ["dense", "=3", "a=0", "a=-1", "a=nan", "a=inf", "a=x", "a=1e7"])
def test_factors_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="--lr-multipliers"):
        parse_rates(text, "--lr-multipliers")


def test_a_pattern_without_a_parameter_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"'foo\*' matches no parameter; there are: conv1, layer1"):
        check_patterns(["conv1", "foo*"], ["conv1.kernel", "layer1.0.conv1.kernel"], "--freeze")
