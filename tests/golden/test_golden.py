"""Twenty steps of the real `train_step` against twenty steps of PyTorch 2.13."""

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_problem import (
    BATCH_SEEDS,
    BATCH_SIZE,
    DECAY_AFTER,
    HIDDEN,
    IMAGE_SIZE,
    NORM_GROUPS,
    STEPS,
    WIDTHS,
    Tensors,
    above,
    batch,
    initial_parameters,
    relative_errors,
    sketch,
)
from x64 import enable_x64

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper, StepDecay
from cifar_jax.core.train import Experiment, TrainState, init_state, predict, train_step
from cifar_jax.kernels import fast, jit

# Float32 is compiled as in a run. Float64 checks the mathematics. There XLA's own convolution on a
# CPU is a slow loop, so the plain layers take only two of the twenty steps.
CASES = {
    ("auto", "float32"): STEPS,
    ("auto", "float64"): STEPS,
    ("plain", "float32"): STEPS,
    ("plain", "float64"): 2,
}
# The kernels replace convolutions, pooling and BatchNorm alone, so other norms are not repeated.
NORMS = {
    ("auto", "float32"): ("none", "batch", "group"),
    ("plain", "float32"): ("none", "batch"),
    ("plain", "float64"): ("batch",),
}
MARKS = {"float64": (), "float32": pytest.mark.optimised}
ARMS = [
    pytest.param(norm, kernels, dtype, marks=MARKS[dtype], id=f"{norm}-{kernels}-{dtype}")
    for kernels, dtype in CASES
    for norm in NORMS.get((kernels, dtype), BATCH_SEEDS)
]
SIDE = IMAGE_SIZE // 2 ** len(WIDTHS)
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
# The mathematics is the same, so that in float64 all is equal but for rounding.
LIMITS = {"float64": 1e-9, "float32": 1e-3}
LOSS_LIMITS = {"float64": 1e-9, "float32": 1e-4}
FIRST_LOSS_LIMITS = {"float64": 1e-9, "float32": 1e-6}


def from_torch(name: str, value: np.ndarray) -> np.ndarray:
    """A weight in our layout: NHWC, inputs before outputs, flattened from (H, W, C)."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name == "dense1.weight":
        image = value.reshape(HIDDEN, WIDTHS[-1], SIDE, SIDE)
        return image.transpose(2, 3, 1, 0).reshape(-1, HIDDEN)
    return value.T


def to_torch(name: str, value: np.ndarray) -> np.ndarray:
    """The inverse of `from_torch`."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if name == "dense1.weight":
        image = value.reshape(SIDE, SIDE, WIDTHS[-1], HIDDEN)
        return image.transpose(3, 2, 0, 1).reshape(HIDDEN, -1)
    return value.T


def torch_name(path: tuple[jax.tree_util.DictKey, ...]) -> str:
    """ "conv1.weight" of params["conv1"]["kernel"]."""
    layer, leaf = (part.key for part in path)
    return f"{layer}.{LEAVES.get(leaf, leaf)}"


def named(kind: str, tree: object) -> Tensors:
    """Return a tree's leaves with PyTorch's names and layout."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [torch_name(path) for path, _ in leaves]
    return {
        f"{kind} {name}": to_torch(name, np.asarray(leaf))
        for name, (_, leaf) in zip(names, leaves, strict=True)
    }


def is_momentum(part: object) -> bool:
    return isinstance(part, optax.TraceState)


def model_of(norm: str, kernels: str) -> nn.Module:
    """The network, with the layers of one of `CASES`."""
    model = CNN(norm=norm, dropout=0.0, norm_groups=NORM_GROUPS)
    return {"auto": fast, "plain": lambda model: model}[kernels](model)


@functools.cache
def trajectory(norm: str, kernels: str, dtype: str) -> Tensors:
    """Return `make_reference.trajectory` of this package.

    After all `STEPS`; for a case of fewer, their losses alone.
    """
    # As many images an epoch as a batch has: the rate drops after DECAY_AFTER steps.
    experiment = Experiment(
        model=model_of(norm, kernels),
        inputs=Inputs(augment=(), dtype=dtype),
        schedule=StepDecay(every=DECAY_AFTER),
        batch_size=BATCH_SIZE,
    )
    with enable_x64(dtype == "float64"):
        start = {name: value.astype(dtype) for name, value in initial_parameters(norm).items()}
        image_shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
        key = jax.random.key(0)
        shapes = jax.eval_shape(lambda: init_state(experiment, key, image_shape))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.replace(key=None))

        def initial(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.Array) -> np.ndarray:
            value = from_torch(torch_name(path), start.pop(torch_name(path)))
            assert value.shape == leaf.shape
            return value

        params = jax.tree_util.tree_map_with_path(initial, zeros.params)
        assert not start
        state = zeros.replace(
            key=key,
            params=params,
            batch_stats=jax.tree_util.tree_map_with_path(
                lambda path, leaf: leaf.astype(dtype) + (path[-1].key == "var"), zeros.batch_stats
            ),
            opt_state=experiment.optimizer(Hyper(), lambda step: 0.0).init(params),
            bad_step=zeros.bad_step - 1,
        )
        seeds = BATCH_SEEDS[norm][: CASES[kernels, dtype]]
        images, labels = map(np.stack, zip(*map(batch, seeds), strict=True))
        labels = labels.astype(np.int32)

        def step(state: TrainState, batch: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Any]:
            # An epoch is one batch here, so its sum of losses is the batch's.
            state = train_step(experiment, Hyper(), BATCH_SIZE, state, *batch)
            loss = state.loss_sum
            return state.replace(loss_sum=jnp.zeros_like(loss)), loss

        losses, compiled = [], jit(step)
        for one in zip(images, labels, strict=True):
            state, loss = compiled(state, one)
            losses.append(loss)
        if len(losses) < STEPS:
            return {"loss": np.asarray(losses)}
        logits = predict(experiment, state, jnp.asarray(images[0]))
        chain = jax.tree.leaves(state.opt_state, is_leaf=is_momentum)
        (momentum,) = [part.trace for part in chain if is_momentum(part)]
        return {
            "loss": np.asarray(losses),
            "logits": np.asarray(logits),
            **named("parameter", state.params),
            **named("momentum", momentum),
            **named("statistic", state.batch_stats),
        }


def check(actual: Tensors, expected: Tensors, dtype: str) -> None:
    assert all(value.dtype == dtype for value in actual.values())
    steps = len(actual["loss"])
    losses = np.abs(actual["loss"] / expected["loss"][:steps] - 1)
    assert losses[0] <= FIRST_LOSS_LIMITS[dtype]
    assert losses.max() <= LOSS_LIMITS[dtype]
    if steps == STEPS:
        assert above(relative_errors(actual, expected), LIMITS[dtype]) == []


@pytest.mark.parametrize(("norm", "kernels", "dtype"), ARMS)
def test_trajectory_is_the_stored_one(norm: str, kernels: str, dtype: str) -> None:
    prefix = f"{norm} {dtype} "
    with np.load(Path(__file__).with_name("reference.npz")) as stored:
        expected = {
            name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)
        }
    actual = trajectory(norm, kernels, dtype)
    check({name: sketch(value).astype(dtype) for name, value in actual.items()}, expected, dtype)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    pytest.importorskip("torch", reason="PyTorch is not installed; stored results were checked")
    import make_reference

    return make_reference


@pytest.mark.parametrize(("norm", "kernels", "dtype"), ARMS)
def test_trajectory_is_that_of_pytorch_run_now(
    reference: ModuleType, norm: str, kernels: str, dtype: str
) -> None:
    check(trajectory(norm, kernels, dtype), reference.trajectory(norm, dtype), dtype)


def test_sketch_sees_one_changed_entry_and_measures_it() -> None:
    values = np.random.PCG64(1).random_raw(2**16) / 2.0**64
    changed = values.copy()
    changed[12_345] += 0.5
    assert np.linalg.norm(sketch(changed) - sketch(values)) == pytest.approx(0.5)
    noise = np.random.default_rng(0).normal(size=values.size)
    measured = np.linalg.norm(sketch(values + noise) - sketch(values))
    assert measured == pytest.approx(np.linalg.norm(noise), rel=0.15)
