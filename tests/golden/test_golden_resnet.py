"""Residual networks against PyTorch 2.13: counts, values in both modes, gradients, statistics."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden_problem import Tensors, above, relative_errors
from resnet_problem import (
    BATCH_SIZE,
    COUNTED_NORMS,
    IMAGE_SIZE,
    NORM_GROUPS,
    NORMS,
    STEPS,
    batch,
    initial_values,
    small,
)
from x64 import enable_x64

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.optim import Hyper
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Experiment, TrainState, init_state, train_step
from cifar_jax.kernels import fast, jit
from cifar_jax.runner.torch_names import our_layout, our_name
from cifar_jax.runner.transfer import replaced

NETWORKS = {
    "resnet18": {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "shortcut": "project"},
    "resnet20": {"blocks": (3, 3, 3)},
    "resnet32": {"blocks": (5, 5, 5)},
    "resnet56": {"blocks": (9, 9, 9)},
    "plain20": {"blocks": (3, 3, 3), "shortcut": "none"},
    "plain32": {"blocks": (5, 5, 5), "shortcut": "none"},
    "plain56": {"blocks": (9, 9, 9), "shortcut": "none"},
}
HYPER = Hyper(learning_rate=0.01, momentum=0.9, weight_decay=1e-4)
IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)
# In float64 only rounding differs. In float32 rounding moves inputs of ReLUs over the edge, so that
# a gradient jumps at a few of the million positions.
LIMITS = {"float64": 1e-9, "float32": 2e-2}
FIRST_LOSS_LIMITS = {"float64": 1e-9, "float32": 1e-5}


@pytest.fixture(scope="module")
def stored() -> Iterator[Tensors]:
    with np.load(Path(__file__).with_name("resnet_reference.npz")) as found:
        yield dict(found)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    pytest.importorskip("torch", reason="PyTorch is not installed; stored results were checked")
    import make_resnet_reference

    return make_resnet_reference


def experiment_of(name: str, norm: str, dtype: str, kernels: str = "auto") -> Experiment:
    model = ResNet(**NETWORKS[name], norm=norm, norm_groups=NORM_GROUPS)
    model = fast(model) if kernels == "auto" else model
    return Experiment(model, Inputs(augment=(), dtype=dtype), batch_size=BATCH_SIZE)


def named_leaves(tree: object) -> dict[str, jax.Array]:
    """Return the leaves of a tree of dicts by name: "conv1.kernel"."""
    return flatten_dict(tree, sep=".")


def torch_shape(value: jax.Array) -> tuple[int, ...]:
    return {4: lambda h, w, i, o: (o, i, h, w), 2: lambda i, o: (o, i), 1: lambda c: (c,)}[
        value.ndim
    ](*value.shape)


def torch_names(params: object) -> dict[str, str]:
    """Our names by torchvision's."""
    found = {}
    for name in named_leaves(params):
        module, _, leaf = name.rpartition(".")
        part = module.rpartition(".")[2].replace("norm", "bn")
        module = ".".join([*module.split(".")[:-1], part])
        found[f"{module}.{'bias' if leaf == 'bias' else 'weight'}"] = name
    return found


def to_torch(value: np.ndarray) -> np.ndarray:
    return np.asarray(value).transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim])


def renamed(kind: str, tree: object, names: dict[str, str]) -> Tensors:
    """Return the leaves of parameters with torchvision's names and layout."""
    leaves = named_leaves(tree)
    return {f"{kind} {theirs}": to_torch(leaves[ours]) for theirs, ours in names.items()}


def start(state: TrainState, dtype: str) -> TrainState:
    """Return the problem's initial values, named by the mapping of weight files."""
    names, leaves = torch_names(state.params), named_leaves(state.params)
    shapes = {theirs: torch_shape(leaves[ours]) for theirs, ours in names.items()}
    values = {}
    for theirs, value in initial_values(shapes).items():
        ours = our_name(theirs, value.ndim)
        assert ours == names[theirs]
        values[ours] = our_layout(value).astype(dtype)
    assert values.keys() == leaves.keys()
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), state.params)
    return state.replace(
        params=replaced(params, values),
        batch_stats=jax.tree.map(lambda leaf: leaf.astype(dtype), state.batch_stats),
    )


def initial(experiment: Experiment) -> TrainState:
    """A state of the right structure; its values do not matter."""
    shapes = jax.eval_shape(lambda: init_state(experiment, jax.random.key(0), IMAGE_SHAPE))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.replace(key=None))
    ones = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + (path[-1].key == "var"), zeros.batch_stats
    )
    return zeros.replace(batch_stats=ones, key=jax.random.key(0))


@cache
def trajectory(norm: str, dtype: str, kernels: str = "auto") -> Tensors:
    """Return `make_resnet_reference.trajectory` of this package.

    Of the plain kernels, which are slow in float64, loss and gradients of the first step alone.
    """
    count = STEPS if kernels == "auto" else 1
    with enable_x64(dtype == "float64"):
        experiment = experiment_of("resnet20", norm, dtype, kernels)
        state = start(initial(experiment), dtype)
        optimizer = experiment.optimizer(HYPER, lambda step: 0.0)
        state = state.replace(opt_state=optimizer.init(state.params))
        images, labels = map(np.stack, zip(*map(batch, range(count)), strict=True))

        # An epoch is one batch here, so that its sum of losses is the batch's.
        step = jit(lambda *args: train_step(experiment, HYPER, BATCH_SIZE, *args))
        states, losses = [state], []
        for one in zip(images, labels.astype(np.int32), strict=True):
            before = states[-1].replace(loss_sum=jnp.zeros_like(state.loss_sum))
            states.append(step(before, *one))
            losses.append(states[-1].loss_sum)
        # Of the first step of SGD: the difference is the rate times gradient plus decay.
        gradients = jax.tree.map(
            lambda old, new: (old - new) / HYPER.learning_rate - HYPER.weight_decay * old,
            states[0].params,
            states[1].params,
        )
        names = torch_names(state.params)
        found = {"loss": np.asarray(losses), **renamed("gradient", gradients, names)}
        if count < STEPS:
            return found
        state = states[-1]
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        x = experiment.inputs.evaluate(images[0])
        evaluation = jit(partial(experiment.model.apply, train=False))(variables, x)
    found |= {"evaluation logits": evaluation, **renamed("parameter", state.params, names)}
    for ours, leaf in named_leaves(state.batch_stats).items():
        theirs = ours.replace("norm", "bn").replace(".mean", ".running_mean")
        found[f"statistic {theirs.replace('.var', '.running_var')}"] = leaf
    return {name: np.asarray(value) for name, value in found.items()}


def check(actual: Tensors, expected: Tensors, dtype: str) -> None:
    steps = len(actual["loss"])
    if steps < STEPS:
        expected = {name: expected[name] for name in actual}
        expected["loss"] = expected["loss"][:steps]
    errors = relative_errors(actual, expected)
    assert abs(actual["loss"][0] / expected["loss"][0] - 1) <= FIRST_LOSS_LIMITS[dtype]
    assert above(errors, LIMITS[dtype]) == []


@pytest.mark.parametrize(
    ("norm", "dtype", "kernels"),
    [
        *(
            (norm, "float64", kernels)
            for kernels in ("auto", "plain")
            for norm in ("none", "batch")
        ),
        pytest.param("batch", "float32", "auto", marks=pytest.mark.optimised),
    ],
)
def test_resnet20_trains_as_stored(stored: Tensors, norm: str, dtype: str, kernels: str) -> None:
    prefix = f"resnet20 {norm} "
    expected = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    actual = trajectory(norm, dtype, kernels)
    assert actual["loss"].dtype == dtype
    check(small(actual), expected, dtype)


@pytest.mark.parametrize("norm", NORMS)
def test_resnet20_trains_as_pytorch_now(reference: ModuleType, norm: str) -> None:
    check(trajectory(norm, "float64"), reference.trajectory(norm), "float64")


@cache
def forward18() -> Tensors:
    """Return `make_resnet_reference.forward18` of this package, with batch norm."""
    with enable_x64(True):
        experiment = experiment_of("resnet18", "batch", "float64")
        state = start(initial(experiment), "float64")

        @jax.jit
        def forward(params, batch_stats, images):
            x = experiment.inputs.evaluate(images)
            variables = {"params": params, "batch_stats": batch_stats}
            training, new = experiment.model.apply(
                variables, x, train=True, mutable=["batch_stats"]
            )
            evaluation = experiment.model.apply({**variables, **new}, x, train=False)
            return {"training logits": training, "evaluation logits": evaluation}

        found = forward(state.params, state.batch_stats, batch(0)[0])
        return {name: np.asarray(value) for name, value in found.items()}


def test_resnet18_is_the_stored_one(stored: Tensors) -> None:
    expected = {k: stored[f"resnet18 batch {k}"] for k in ("training logits", "evaluation logits")}
    assert above(relative_errors(small(forward18()), expected), 1e-9) == []


def test_resnet18_is_pytorchs_now(reference: ModuleType) -> None:
    assert above(relative_errors(forward18(), reference.forward18("batch")), 1e-9) == []


def counts() -> dict[str, int]:
    found = {}
    for name in NETWORKS:
        for norm in COUNTED_NORMS:
            init = partial(init_state, experiment_of(name, norm, "float32", "plain"))
            state = jax.eval_shape(lambda f=init: f(jax.random.key(0), IMAGE_SHAPE))
            found[f"{name} {norm}"] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return found


def test_parameter_counts_are_exactly_pytorchs(stored: Tensors) -> None:
    found = counts()
    expected = {k.removeprefix("count "): int(v) for k, v in stored.items() if "count" in k}
    assert found == expected
    published = {"resnet20": 0.27, "resnet32": 0.46, "resnet56": 0.85}  # millions, He et al. 2016
    assert {name: round(found[f"{name} batch"] / 1e6, 2) for name in published} == published


def test_parameter_counts_are_those_of_pytorch_now(reference: ModuleType) -> None:
    assert counts() == reference.counts()
