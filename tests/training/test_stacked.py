"""Runs trained together as an accelerator would have them, on the CPU."""

from collections.abc import Iterator
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from cifar_jax.models.cnn import CNN
from cifar_jax.models.convolution import RUNS, is_stacked
from cifar_jax.models.resnet import ResNet
from cifar_jax.training.loop import compile_device_epoch, stack_runs, unstack_state
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec, TrainState, init_state
from cifar_jax.training.step import StepMetrics, train_step

pytestmark = pytest.mark.optimised

HYPERS = [Hyperparams(*map(np.float32, (rate, 0.9, 5e-4))) for rate in (0.01, 0.02)]


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The choices are those for a GPU; the programs are still compiled, fast, for the CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def spec() -> TrainSpec:
    return TrainSpec(CNN(norm="batch", widths=(4, 6), hidden=8), batch_size=8)


def states(spec: TrainSpec) -> list[TrainState]:
    initial = jax.jit(init_state, static_argnums=(0, 2))
    return [initial(spec, jax.random.key(seed), (8, 8, 3)) for seed in (0, 1)]


def test_stacked_runs_are_the_same_runs_one_by_one(spec: TrainSpec, tiny_data: TrainData) -> None:
    """Other sums of the same terms: the step and all that it changes are equal within rounding."""
    images, labels = tiny_data.train_images[:8], tiny_data.train_labels[:8]

    def step(hyper: Hyperparams, state: TrainState) -> tuple[TrainState, StepMetrics]:
        return train_step(spec, hyper, 20, state, images, labels)

    hyper, state = stack_runs(HYPERS), stack_runs(states(spec))
    new, metrics = jax.jit(jax.vmap(step, axis_name=RUNS))(hyper, state)
    alone = jax.jit(step)
    for i, (hyper, before) in enumerate(zip(HYPERS, states(spec), strict=True)):
        wanted, wanted_metrics = alone(hyper, before)
        found = unstack_state(new, i, 2)
        for actual, expected in zip(
            *(jax.tree.leaves((s.params, s.batch_stats, s.opt_state)) for s in (found, wanted)),
            strict=True,
        ):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics.loss[i], wanted_metrics.loss, rtol=1e-5)
        assert metrics.correct[i] == wanted_metrics.correct


@pytest.mark.parametrize("runs", [1, 2])
def test_the_epoch_of_several_runs_is_traced_as_stacked(tiny_data: TrainData, runs: int) -> None:
    seen = set()

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            seen.add(is_stacked())
            return nn.Dense(10, name="dense")(x[:, 0, 0])

    spec = TrainSpec(Spy(), batch_size=8, augment=False)
    state = [init_state(spec, jax.random.key(0), (8, 8, 3))] * runs
    seen.clear()
    hyper = stack_runs(HYPERS[:runs])
    compile_device_epoch(spec, hyper, stack_runs(state), tiny_data, runs)
    assert seen == {runs > 1}


@pytest.mark.parametrize("network", ["cnn", "resnet"])
def test_stacked_runs_have_no_convolution(
    spec: TrainSpec, tiny_data: TrainData, network: str
) -> None:
    """Alone they have; a stacked one would be grouped."""
    if network == "resnet":
        spec = TrainSpec(ResNet(blocks=(1, 1), widths=(4, 8)), batch_size=8)
    images, labels = tiny_data.train_images[:8], tiny_data.train_labels[:8]
    step = partial(train_step, spec, HYPERS[0], 20)

    def program(axis: str) -> str:
        stacked = jax.vmap(lambda state: step(state, images, labels), axis_name=axis)
        return str(jax.make_jaxpr(stacked)(stack_runs(states(spec))))

    assert "conv_general_dilated" in program("another")
    assert "feature_group_count=2" in program("another")
    assert "conv_general_dilated" not in program(RUNS)
