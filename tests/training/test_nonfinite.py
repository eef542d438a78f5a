"""The first value that is not finite: found where it was planted, and only if it matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.training.epoch import first_nonfinite_step
from cifar_jax.training.loop import HostData
from cifar_jax.training.nonfinite import first_nonfinite, replay
from cifar_jax.training.optimizer import Hyperparams

ONES = jnp.ones(3)


@jax.custom_vjp
def bad_backward(x):
    return x


bad_backward.defvjp(lambda x: (x, x), lambda x, g: (g / (x - x),))


@pytest.mark.parametrize(
    ("function", "primitive", "value"),
    [
        (lambda x: jnp.exp(200 * x).sum(), "exp", "infinity"),
        (lambda x: jnp.log(x - 2) + 1, "log", "NaN"),
        (lambda x: jax.jit(lambda y: jnp.sqrt(-y))(x) * 2, "sqrt", "NaN"),
        (lambda x: jax.grad(lambda y: bad_backward(y).sum())(x), "div", "infinity"),
        # Of two, the one that comes first.
        (lambda x: jnp.log(jnp.exp(200 * x) - jnp.exp(200 * x)), "exp", "infinity"),
    ],
)
def test_the_operation_is_found(function, primitive, value):
    found = first_nonfinite(function, ONES)
    assert (found.primitive, found.value) == (primitive, value)
    assert "test_nonfinite.py" in found.source


def test_what_reaches_no_result_does_not_count():
    assert first_nonfinite(lambda x: jnp.where(x > 2, jnp.log(x - 1), x), ONES) is None
    assert first_nonfinite(lambda x: x + 1, ONES) is None
    assert first_nonfinite(lambda x: x, ONES) is None


def test_the_place_is_the_layer_and_the_pass():
    def loss(x):
        with jax.named_scope("Net"), jax.named_scope("layer1"):
            return bad_backward(x).sum()

    assert first_nonfinite(jax.grad(loss), ONES).place == "the backward pass of layer1"
    assert first_nonfinite(lambda x: {"a": {"b": x / 0}}, ONES).place == "what becomes a/b"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 2.0, 3.0], -1),
        ([np.nan, 2.0, 3.0], 0),
        ([1.0, np.inf, np.nan], 1),
        ([1.0, 2.0, np.nan], 2),
        ([np.inf], 0),
        ([1.0], -1),
    ],
)
def test_first_step(losses, expected):
    found = first_nonfinite_step(jnp.array(losses))
    assert int(found) == expected
    assert found.dtype == jnp.int32


def test_replay_finds_the_step_and_a_healthy_epoch_has_none(tiny_spec, tiny_data, tiny_state):
    images, labels = (np.asarray(x) for x in tiny_data[:2])
    source = HostData(images, labels, np.arange(len(labels)))

    def at(rate):
        hyper = Hyperparams(*map(np.float32, (rate, 0.9, 5e-4)))
        return replay(tiny_spec, hyper, tiny_state, source, 1)

    assert at(0.01) is None
    step, operation = at(1e30)
    assert step <= 3
    assert operation.value in ("NaN", "infinity")
    assert " pass of " in operation.place or "what becomes" in operation.place
