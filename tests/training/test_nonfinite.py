"""The first value that is not finite: found where it was planted, and only if it matters."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from groups import group_of, trained

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, TrainState, init_state
from cifar_jax.runner.group import Divergence
from cifar_jax.runner.nonfinite import first_nonfinite, replay
from cifar_jax.runner.programs import CompiledEpoch, compile_device_epoch, stack_runs
from cifar_jax.runner.streamed import HostData, compile_stream_epoch

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

    assert first_nonfinite(jax.grad(loss), ONES).layer == "the backward pass of layer1"
    assert first_nonfinite(lambda x: {"a": {"b": x / 0}}, ONES).layer == "the computation of a/b"


class Explodes(nn.Module):
    """Its loss is infinite in the training batches in which `batches`, a counter, is 0 or more."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        batches = self.variable("batch_stats", "batches", jnp.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (10,))
        bad = batches.value >= 0
        if train:
            batches.value += 1
        else:
            bad = False
        return jnp.zeros((len(x), 10)) + bias + jnp.where(bad, jnp.inf, 0.0)


EXPLODES = Experiment(Explodes(), Inputs(augment=()), batch_size=8)
HYPER = Hyper(*map(np.float32, (0.01, 0.9, 5e-4)))


@functools.cache
def initial() -> TrainState:
    return jax.jit(lambda key: init_state(EXPLODES, key, (8, 8, 3)))(jax.random.key(0))


def begin(first: int) -> TrainState:
    """The first state of a run whose loss is infinite from batch `first` on, counted from 0."""
    return initial().replace(batch_stats={"batches": jnp.float32(-first)})


def source_of(data: Data) -> HostData:
    images, labels = (np.asarray(x) for x in data[:2])
    return HostData(images, labels, np.arange(len(labels)))


@pytest.fixture(scope="module")
def exploding(tiny_data: Data) -> Callable[[str], CompiledEpoch]:
    """Return the program of a pipeline, compiled once for all starts."""

    @functools.cache
    def compiled(pipeline: str) -> CompiledEpoch:
        if pipeline == "device":
            return compile_device_epoch(EXPLODES, HYPER, initial(), tiny_data)
        return compile_stream_epoch(EXPLODES, HYPER, initial(), source_of(tiny_data), tiny_data)

    return compiled


@pytest.mark.parametrize("pipeline", ["device", "stream"])
@pytest.mark.parametrize(
    ("first", "epoch", "step"),
    [(0, 1, 1), (1, 1, 2), (2, 1, 3), (3, 2, 1), (5, 2, 3), (6, 2, None)],
)
def test_a_divergence_names_its_epoch_and_step(exploding, pipeline, first, epoch, step):
    """Three steps an epoch, the last a partial batch; 6 is after the second epoch."""
    group = trained(group_of(exploding(pipeline), HYPER, begin(first), 2))
    assert group.diverged == ({} if step is None else {0: Divergence(epoch, step)})
    healthy = epoch if step is None else epoch - 1
    assert [row.epoch for row in group.rows(0)] == list(range(1, healthy + 1))


def test_one_of_two_runs_can_diverge(tiny_data, tiny_experiment, tiny_state):
    hypers = [Hyper(*map(np.float32, (rate, 0.9, 5e-4))) for rate in (0.01, 1e30)]
    hyper, state = stack_runs(hypers), stack_runs([tiny_state, tiny_state])
    program = compile_device_epoch(tiny_experiment, hyper, state, tiny_data)
    group = trained(group_of(program, hyper, state, 1, [Path("a/b"), Path("a/c")]))
    assert group.alive == [0]
    assert [len(group.rows(i)) for i in range(2)] == [1, 0]
    assert group.diverged[1] in [Divergence(1, step) for step in (2, 3, None)]


def test_a_validation_loss_that_is_not_finite_has_no_step(tiny_data):
    class BadInEvaluation(Explodes):
        def __call__(self, x, *, train):
            return super().__call__(x, train=True) if train else jnp.full((len(x), 10), jnp.nan)

    experiment = replace(EXPLODES, model=BadInEvaluation())
    program = compile_device_epoch(experiment, HYPER, initial(), tiny_data)
    group = trained(group_of(program, HYPER, begin(99), 1))
    assert group.diverged == {0: Divergence(1, None)}
    assert "at the end of epoch 1" in str(group.diverged[0])


def test_replay_finds_the_step_and_a_healthy_epoch_has_none(tiny_experiment, tiny_data, tiny_state):
    source = source_of(tiny_data)

    def at(rate):
        hyper = Hyper(*map(np.float32, (rate, 0.9, 5e-4)))
        return replay(tiny_experiment, hyper, tiny_state, source, 1)

    assert at(0.01) is None
    step, operation = at(1e30)
    assert step <= 3
    assert operation.value in ("NaN", "infinity")
    assert " pass of " in operation.layer or "the computation of" in operation.layer


def test_replay_goes_on_in_the_middle_of_an_epoch(tiny_data, exploding):
    """From the state after its steps, with their number in it."""
    for done in (0, 2):
        middle = exploding("device").advance(HYPER, begin(2), 0, done)
        step, operation = replay(EXPLODES, HYPER, middle, source_of(tiny_data), 1)
        assert step == 3
        assert "forward pass" in operation.layer or "the computation of" in operation.layer
