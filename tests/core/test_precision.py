"""Full float32, TF32 and bfloat16: precision of products, and values that stay float32."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.model import CNN
from cifar_jax.core.norms import Norm
from cifar_jax.core.optim import Hyper
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Data, Experiment, TrainState, init_state, predict, train_step
from cifar_jax.methods.ghost import Ghost

HYPER = Hyper()
EXPERIMENT = Experiment(CNN(norm="batch", widths=(4,), hidden=16), batch_size=8)
PRODUCTS = ("dot_general", "conv_general_dilated")


def inner_jaxprs(parameter: Any) -> Iterator[Any]:
    if hasattr(parameter, "jaxpr"):
        yield parameter.jaxpr
    elif hasattr(parameter, "eqns"):
        yield parameter
    elif isinstance(parameter, tuple | list):
        for item in parameter:
            yield from inner_jaxprs(item)


def equations(jaxpr: Any) -> Iterator[Any]:
    """Return all equations, those of called programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in inner_jaxprs(parameter):
                yield from equations(inner)


@pytest.fixture(scope="module")
def shapes() -> TrainState:
    """Of the state of `EXPERIMENT` for images of 8x8."""
    return jax.eval_shape(lambda key: init_state(EXPERIMENT, key, (8, 8, 3)), jax.random.key(0))


def precisions(experiment: Experiment, state: TrainState, data: Data) -> set[str]:
    """Return the precisions of the products of a training step and of an evaluation."""

    def both(state: TrainState) -> Any:
        images, labels = data.train_images[:8], data.train_labels[:8]
        new = train_step(experiment, HYPER, 8, state, images, labels)
        return predict(experiment, new, data.val_images)

    products = [
        e for e in equations(jax.make_jaxpr(both)(state).jaxpr) if e.primitive.name in PRODUCTS
    ]
    assert len(products) > 10
    found: set[str] = set()
    for product in products:
        asked = product.params["precision"]
        found |= {str(p) for p in (asked if isinstance(asked, tuple) else (asked,))}
    return found


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("highest", "HIGHEST"), ("tensorfloat32", "HIGH"), (None, "None")],
)
def test_every_product_asks_for_the_precision_of_the_experiment(
    shapes, tiny_data, precision: str | None, expected: str
) -> None:
    """XLA takes HIGHEST as float32, HIGH as TF32 on NVIDIA GPUs."""
    experiment = replace(EXPERIMENT, precision=precision)
    assert precisions(experiment, shapes, tiny_data) == {expected}
    assert jax.config.jax_default_matmul_precision is None


def test_the_default_is_float32_in_full_and_two_precisions_do_not_mix(shapes, tiny_data) -> None:
    tf32 = replace(EXPERIMENT, precision="tensorfloat32")
    assert Experiment().precision == "highest"
    order = ((EXPERIMENT, "HIGHEST"), (tf32, "HIGH"), (EXPERIMENT, "HIGHEST"))
    for experiment, expected in order:
        assert precisions(experiment, shapes, tiny_data) == {expected}
    assert tf32 != EXPERIMENT  # The key of the programs that are kept.


def small(network: str, norm: Norm) -> CNN | ResNet:
    if network == "cnn":
        return CNN(norm=norm, widths=(16,), hidden=32, dropout=0.0, norm_groups=4)
    return ResNet(norm=norm, blocks=(1, 1), widths=(8, 16), norm_groups=4)


def momenta(state: TrainState) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]


@pytest.mark.parametrize(
    ("network", "norm"),
    [("cnn", "batch"), ("cnn", "group"), ("cnn", Ghost(2)), ("resnet", "batch")],
)
def test_bfloat16_step_is_near_that_of_float32_and_its_state_is_float32(
    network: str, norm: Norm
) -> None:
    """In the first step the momentum's buffer is the gradient.

    bfloat16 rounds a number by 2^-9 at most. But if rounding moves a maximum to another pixel, the
    gradient moves too. On this noise its error is 5 to 13 % of its length, and 7 % with batch norm
    if only the images are rounded.
    """
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (32, 8, 8, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, 32, np.int32))
    hyper = Hyper(weight_decay=0.0)
    experiment = Experiment(small(network, norm), Inputs(augment=()), batch_size=32)
    state = jax.jit(init_state, static_argnums=(0, 2))(experiment, jax.random.key(0), (8, 8, 3))
    states, losses = [], []
    for dtype in ("float32", "bfloat16"):
        experiment = replace(experiment, inputs=Inputs(augment=(), dtype=dtype))
        new = jax.jit(train_step, static_argnums=(0, 2))(
            experiment, hyper, 32, state, images, labels
        )
        kinds = {leaf.dtype for leaf in jax.tree.leaves((new.params, new.batch_stats))}
        assert kinds == {jnp.dtype("float32")}
        assert new.loss_sum.dtype == jnp.float32
        assert {leaf.dtype for leaf in momenta(new)} == {jnp.dtype("float32")}
        states.append(new)
        losses.append(float(new.loss_sum))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]

    exact, rounded = (np.concatenate([m.ravel() for m in momenta(s)]) for s in states)
    assert np.linalg.norm(rounded - exact) < 0.2 * np.linalg.norm(exact)
    for a, b in zip(*(jax.tree.leaves(s.batch_stats) for s in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)


def test_activations_are_bfloat16_and_logits_float32(shapes) -> None:
    variables = jax.tree.map(
        lambda s: jnp.ones(s.shape, s.dtype),
        {"params": shapes.params, "batch_stats": shapes.batch_stats},
    )
    layers = ("conv1", "norm1", "dense1", "norm2")
    logits, state = EXPERIMENT.model.apply(
        variables,
        jnp.ones((2, 8, 8, 3), jnp.bfloat16),
        train=False,
        capture_intermediates=lambda module, _: module.name in layers,
        mutable=["intermediates"],
    )
    assert state["intermediates"].keys() == set(layers)
    seen = {str(leaf.dtype) for leaf in jax.tree.leaves(state["intermediates"])}
    assert seen == {"bfloat16"}
    assert logits.dtype == jnp.float32


def test_a_small_run_learns_in_bfloat16() -> None:
    """Ten colours under noise."""
    rng = np.random.default_rng(0)
    labels = (np.arange(320) % 10).astype(np.int32)
    colours = rng.integers(32, 224, (10, 1, 1, 3))
    noise = rng.normal(0, 16, (320, 8, 8, 3))
    images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    model = CNN(norm="batch", widths=(8,), hidden=32, dropout=0.0)
    inputs = Inputs(augment=(), dtype="bfloat16")
    experiment = Experiment(model, inputs, batch_size=32, epochs=8, eval_batch_size=64)
    state = jax.jit(init_state, static_argnums=(0, 2))(experiment, jax.random.key(0), (8, 8, 3))
    step = jax.jit(train_step, static_argnums=(0, 2))
    for epoch in range(8):
        state = state.replace(loss_sum=jnp.zeros(()))
        for rows in np.random.default_rng(epoch).permutation(256).reshape(-1, 32):
            state = step(experiment, HYPER, 256, state, images[rows], labels[rows])
    logits = np.asarray(predict(experiment, state, jnp.asarray(images[256:])))
    assert (logits.argmax(1) == labels[256:]).mean() > 0.95
    assert float(state.loss_sum) / 8 < 0.5
