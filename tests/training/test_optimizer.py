"""SGD and its schedule against PyTorch's rule in NumPy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cifar_jax.models.cnn import CNN
from cifar_jax.training.optimizer import Hyperparams, sgd
from cifar_jax.training.state import (
    TrainSpec,
    TrainState,
    learning_rate_schedule,
    optimizer,
    steps_per_epoch,
)

PROTOCOL = TrainSpec(CNN())
STEPS = 352
"""45,000 images in batches of 128, the last one of 72."""


def test_an_epoch_of_the_protocol_has_352_steps() -> None:
    assert steps_per_epoch(45_000, 128) == STEPS
    assert steps_per_epoch(45_056, 128) == STEPS
    assert steps_per_epoch(45_057, 128) == STEPS + 1


@pytest.mark.parametrize("step_of_epoch", [0, STEPS - 1])
@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 1e-2), (9, 1e-2), (10, 1e-3), (19, 1e-3), (20, 1e-4), (29, 1e-4)]
)
def test_learning_rate_drops_tenfold_every_ten_epochs(
    epoch: int, rate: float, step_of_epoch: int
) -> None:
    schedule = learning_rate_schedule(PROTOCOL, Hyperparams(), 45_000)
    step = jnp.asarray(epoch * STEPS + step_of_epoch, jnp.int32)
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("n_train", [45_000, 24_000, 20_000, 1_000])
def test_compiled_schedule_drops_at_the_very_step(n_train: int) -> None:
    """XLA divides by a constant by multiplying with its reciprocal, which rounds: a quotient in
    floating point may stay below a whole number for one step too many.
    """
    schedule = jax.jit(learning_rate_schedule(PROTOCOL, Hyperparams(), n_train))
    steps = steps_per_epoch(n_train, PROTOCOL.batch_size)
    for epoch, rate in ((10, 1e-3), (20, 1e-4), (30, 1e-5), (70, 1e-9)):
        first = jnp.asarray(epoch * steps, jnp.int32)
        assert float(schedule(first)) == pytest.approx(rate, rel=1e-5)
        assert float(schedule(first - 1)) == pytest.approx(10 * rate, rel=1e-5)


def test_trajectory_is_that_of_the_rule() -> None:
    """Over a drop of the rate, which scales what the buffer holds, not what enters it."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(9, 6))
    p, buffer = rng.normal(size=6), np.zeros(6)
    rates = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001]
    hyper = Hyperparams(learning_rate=0.1, momentum=0.8, weight_decay=0.3)
    spec = TrainSpec(CNN(), batch_size=1, decay_every=3)
    transformation = optimizer(spec, hyper, 1)
    params = jnp.asarray(p, jnp.float32)
    state = transformation.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        buffer = 0.8 * buffer + gradient + 0.3 * p
        p = p - rate * buffer
        updates, state = transformation.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, p, rtol=1e-5, atol=1e-6)


def test_weight_decay_reaches_every_parameter(tiny_state: TrainState) -> None:
    """Biases and the norms' scale and offset too: a step without gradient shrinks them all."""
    params = jax.tree.map(lambda p: p + 1, tiny_state.params)  # no zeros, which would not shrink
    transformation = sgd(Hyperparams(weight_decay=0.5), lambda step: 0.1)
    gradients = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(gradients, transformation.init(params), params)
    leaves = {
        "/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert {"conv1/bias", "dense2/bias", "norm1/scale", "norm2/bias"} <= leaves
    jax.tree.map(
        lambda update, p: np.testing.assert_allclose(update, -0.1 * 0.5 * p, rtol=1e-6),
        updates,
        params,
    )


def test_first_optimiser_state_is_that_of_any_setting(
    tiny_spec: TrainSpec, tiny_state: TrainState
) -> None:
    hyper = Hyperparams(jnp.float32(0.3), jnp.float32(0.2), jnp.float32(0.1))
    expected = optimizer(tiny_spec, hyper, 20).init(tiny_state.params)
    assert jax.tree.structure(tiny_state.opt_state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, tiny_state.opt_state, expected)
