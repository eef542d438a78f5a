"""Residual networks against PyTorch 2.13: counts, values in both modes, gradients, statistics."""

import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_problem import Tensors, above, relative_errors
from jax import lax
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

from cifar_jax.config import MODELS
from cifar_jax.data.augment import normalise
from cifar_jax.models.paths import named_leaves
from cifar_jax.models.registry import network
from cifar_jax.models.torch_names import our_layout, our_name
from cifar_jax.training.compiler import jit
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainSpec, init_state, optimizer
from cifar_jax.training.step import train_step
from cifar_jax.training.transfer import replaced

try:
    from jax import enable_x64  # the name since jax 0.8
except ImportError:
    from jax.experimental import enable_x64

HYPER = Hyperparams(learning_rate=0.01, momentum=0.9, weight_decay=1e-4)
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


def spec_of(name: str, norm: str, dtype: str) -> TrainSpec:
    model = network(
        name, num_classes=10, norm=norm, dropout=0.0, norm_groups=NORM_GROUPS, norm_momentum=0.9
    )
    return TrainSpec(model, batch_size=BATCH_SIZE, augment=False, dtype=dtype)


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


def start(state: object, dtype: str) -> object:
    """The problem's initial values, under the names that the mapping of weight files gives them."""
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


def initial(spec: TrainSpec) -> object:
    """A state of the right structure; its values do not matter."""
    shapes = jax.eval_shape(lambda: init_state(spec, jax.random.key(0), IMAGE_SHAPE))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.replace(key=None))
    ones = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + (path[-1].key == "var"), zeros.batch_stats
    )
    return zeros.replace(batch_stats=ones, key=jax.random.key(0))


@functools.cache
def trajectory(norm: str, dtype: str) -> Tensors:
    """What `make_resnet_reference.trajectory` returns, from this package."""
    with enable_x64(dtype == "float64"):
        spec = spec_of("resnet20", norm, dtype)
        state = start(initial(spec), dtype)
        state = state.replace(opt_state=optimizer(spec, HYPER, BATCH_SIZE).init(state.params))
        images, labels = map(np.stack, zip(*map(batch, range(STEPS)), strict=True))

        @jit
        def run(state, images, labels):
            def body(state, one):
                new, metrics = train_step(spec, HYPER, BATCH_SIZE, state, *one)
                return new, (metrics.loss, new.params)

            state, (losses, params) = lax.scan(body, state, (images, labels))
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            evaluation = spec.model.apply(variables, normalise(images[0], spec.dtype), train=False)
            return state, losses, evaluation, jax.tree.map(lambda leaf: leaf[0], params)

        before = state.params
        state, losses, evaluation, after = run(state, images, labels.astype(np.int32))
        # Of the first step of SGD: the difference is the rate times gradient plus decay.
        gradients = jax.tree.map(
            lambda old, new: (old - new) / HYPER.learning_rate - HYPER.weight_decay * old,
            before,
            after,
        )
    names = torch_names(state.params)
    found = {"loss": losses, "evaluation logits": evaluation}
    for kind, tree in (("gradient", gradients), ("parameter", state.params)):
        leaves = named_leaves(tree)
        found |= {f"{kind} {theirs}": to_torch(leaves[ours]) for theirs, ours in names.items()}
    for ours, leaf in named_leaves(state.batch_stats).items():
        theirs = ours.replace("norm", "bn").replace(".mean", ".running_mean")
        found[f"statistic {theirs.replace('.var', '.running_var')}"] = leaf
    return {name: np.asarray(value) for name, value in found.items()}


def check(actual: Tensors, expected: Tensors, dtype: str) -> None:
    errors = relative_errors(actual, expected)
    assert abs(actual["loss"][0] / expected["loss"][0] - 1) <= FIRST_LOSS_LIMITS[dtype]
    assert above(errors, LIMITS[dtype]) == []


@pytest.mark.parametrize(
    ("norm", "dtype"),
    [
        *((norm, "float64") for norm in NORMS),
        pytest.param("batch", "float32", marks=pytest.mark.optimised),
    ],
)
def test_resnet20_trains_as_stored(stored: Tensors, norm: str, dtype: str) -> None:
    prefix = f"resnet20 {norm} "
    expected = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    actual = trajectory(norm, dtype)
    assert actual["loss"].dtype == dtype
    check(small(actual), expected, dtype)


@pytest.mark.parametrize("norm", NORMS)
def test_resnet20_trains_as_pytorch_now(reference: ModuleType, norm: str) -> None:
    check(trajectory(norm, "float64"), reference.trajectory(norm), "float64")


@functools.cache
def forward18() -> Tensors:
    """What `make_resnet_reference.forward18` returns, from this package, with batch norm."""
    with enable_x64(True):
        spec = spec_of("resnet18", "batch", "float64")
        state = start(initial(spec), "float64")

        @jax.jit
        def forward(params, batch_stats, images):
            x = normalise(images, spec.dtype)
            variables = {"params": params, "batch_stats": batch_stats}
            training, new = spec.model.apply(variables, x, train=True, mutable=["batch_stats"])
            evaluation = spec.model.apply({**variables, **new}, x, train=False)
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
    for name in MODELS[1:]:
        for norm in COUNTED_NORMS:
            init = functools.partial(init_state, spec_of(name, norm, "float32"))
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
