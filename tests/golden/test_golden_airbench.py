"""The speedrun's recipe against its PyTorch twin: whitening, both modes, 20 steps in float32."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from airbench_problem import RATE, SHARE, STEPS, WHITENED, WIDTHS, initial_values
from golden_problem import BATCH_SIZE, Tensors, above, batch, relative_errors

import cifar_jax as cj
from cifar_jax.kernels import fast

HALF = STEPS // 2
HYPER = cj.Hyper(learning_rate=RATE, momentum=0.6, weight_decay=0.004)


@pytest.fixture(scope="module")
def stored() -> Tensors:
    with np.load(Path(__file__).with_name("airbench_reference.npz")) as found:
        return dict(found)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    sys.path.append(str(Path(__file__).parents[2] / "examples"))
    import airbench94

    return airbench94


@pytest.fixture(scope="module")
def experiment(recipe: ModuleType) -> cj.Experiment:
    """The recipe without augmentation, of two epochs with `HALF` steps each, in float32."""
    optimizer = recipe.AirOptimizer(
        bias_rate=0.053 * SHARE, head_rate=0.67 * SHARE, dtype="float32"
    )
    return replace(
        recipe.RECIPE,
        model=fast(recipe.AirNet(widths=WIDTHS)),
        inputs=cj.Inputs(augment=(), dtype="float32"),
        optimizer=optimizer,
        batch_size=BATCH_SIZE,
        epochs=2,
        precision="highest",
    )


def our_name(theirs: str) -> tuple[str, ...]:
    if theirs == "first.bias":
        return ("first_bias",)
    parts = theirs.split(".")
    leaf = {"weight": "kernel"}.get(parts[-1], parts[-1])
    if parts[0] == "head":
        return "head", leaf
    return f"{parts[2][:-1]}{parts[1]}_{parts[2][-1]}", leaf


def to_ours(value: np.ndarray) -> np.ndarray:
    return value.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim])


def nested(values: Tensors) -> dict[str, Any]:
    """Return values by PyTorch's names as a tree of our parameters."""
    tree: dict[str, Any] = {}
    for theirs, value in values.items():
        *modules, leaf = our_name(theirs)
        part = tree
        for module in modules:
            part = part.setdefault(module, {})
        part[leaf] = to_ours(value).astype(np.float32)
    return tree


@pytest.fixture(scope="module")
def start(experiment: cj.Experiment, stored: Tensors) -> cj.TrainState:
    shape = (32, 32, 3)
    state = jax.jit(lambda key: cj.init_state(experiment, key, shape))(jax.random.key(0))
    params = nested(initial_values())
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, state.params)
    statistics = {**state.batch_stats, "whitening": to_ours(stored["whitening"])}
    return state.replace(params=params, batch_stats=statistics)


@pytest.fixture(scope="module")
def trained(experiment: cj.Experiment, start: cj.TrainState) -> list[cj.TrainState]:
    """The state before each step, and the last."""
    step = jax.jit(
        lambda state, *images: cj.train_step(experiment, HYPER, HALF * BATCH_SIZE, state, *images)
    )
    states = [start]
    for seed in range(STEPS):
        images, labels = batch(seed)
        states.append(step(states[-1], images, labels.astype(np.int32)))
    return states


def differences(params: Any, stored: Tensors, when: str) -> dict[str, float]:
    """Return the relative L2 error of each parameter."""
    found, expected = {}, {}
    for name, value in stored.items():
        if name.startswith(f"{when} "):
            leaf = params
            for part in our_name(name.split()[1]):
                leaf = leaf[part]
            found[name], expected[name] = np.asarray(leaf), to_ours(value)
    assert len(found) == len(initial_values())
    return relative_errors(found, expected)


def test_whitening(recipe: ModuleType, stored: Tensors) -> None:
    """Eigenvectors have no sign, so its square is compared. float32: 1e-3 of the largest value."""
    images = np.concatenate([batch(seed)[0] for seed in WHITENED])
    found = np.asarray(recipe.whitening(cj.Inputs().evaluate(images))).reshape(12, 24)
    expected = to_ours(stored["whitening"]).reshape(12, 24)
    np.testing.assert_array_equal(found[:, :12], -found[:, 12:])
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-3 * np.abs(expected).max())


def test_logits_in_both_modes(
    experiment: cj.Experiment, start: cj.TrainState, stored: Tensors
) -> None:
    """Evaluation averages six views. Against float64: 1e-4 of the largest logit."""
    images = jnp.asarray(batch(0)[0])
    predicted = np.asarray(jax.jit(lambda state: cj.predict(experiment, state, images))(start))
    limit = 1e-4 * np.abs(stored["evaluation"]).max()
    np.testing.assert_allclose(predicted, stored["evaluation"], atol=limit)
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    x = cj.Inputs().evaluate(images)
    apply = jax.jit(
        lambda variables: experiment.model.apply(variables, x, train=True, mutable=["batch_stats"])
    )
    logits = np.asarray(apply(variables)[0])
    limit = 1e-4 * np.abs(stored["training"]).max()
    np.testing.assert_allclose(logits, stored["training"], atol=limit)


def test_one_step_of_each_optimiser(trained: list[cj.TrainState], stored: Tensors) -> None:
    """Muon moves the convolutions, SGD biases and head. Against float64: 1e-4 relative."""
    assert not list(above(differences(trained[1].params, stored, "first"), 1e-4))


def test_twenty_steps(trained: list[cj.TrainState], stored: Tensors) -> None:
    """Float32 against float64: losses within 1e-4, parameters within 1e-3 (L2 norm).

    With jax 0.5.0 rounding grows faster: only the first six losses are compared.
    """
    sums = [float(state.loss_sum) for state in trained]
    old = jax.__version_info__ < (0, 6)
    # The sum goes on over both epochs: only `end_epoch` resets it.
    losses = np.diff(sums)[: 6 if old else STEPS]
    np.testing.assert_allclose(losses, stored["loss"][: len(losses)], rtol=1e-4)
    if old:
        return
    assert not list(above(differences(trained[-1].params, stored, "last"), 1e-3))
    for index, width in enumerate(WIDTHS):
        for part in (1, 2):
            ours = trained[-1].batch_stats[f"norm{index}_{part}"]
            theirs = f"statistic groups.{index}.norm{part}.running_"
            size = (15, 7, 3)[index]
            n, first = BATCH_SIZE * size * size, 0.6**STEPS  # of the initial variance, 1
            assert ours["var"].shape == (width,)
            unbiased = (ours["var"] - first) * (n / (n - 1)) + first
            np.testing.assert_allclose(unbiased, stored[f"{theirs}var"], rtol=1e-3)
