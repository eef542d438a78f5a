"""The two networks: parameters, statistics, shared layers, dropout."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.models.cnn import CNN, count_parameters

SHARED = {
    "conv1": {"kernel": (3, 3, 3, 32), "bias": (32,)},
    "conv2": {"kernel": (3, 3, 32, 64), "bias": (64,)},
    "conv3": {"kernel": (3, 3, 64, 128), "bias": (128,)},
    "dense1": {"kernel": (2048, 256), "bias": (256,)},
    "dense2": {"kernel": (256, 10), "bias": (10,)},
}
NORM_WIDTHS = {"norm1": 32, "norm2": 64, "norm3": 128, "norm4": 256}


@functools.partial(jax.jit, static_argnums=0)
def initialise(norm: str, key: jax.Array) -> dict[str, Any]:
    return CNN(norm=norm).init(key, jnp.zeros((1, 32, 32, 3)), train=False)


@pytest.fixture(scope="module")
def baseline() -> dict[str, Any]:
    return initialise("none", jax.random.key(42))


@pytest.fixture(scope="module")
def batch_norm() -> dict[str, Any]:
    return initialise("batch", jax.random.key(42))


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def test_parameter_counts_are_the_reports(baseline: Any, batch_norm: Any) -> None:
    assert count_parameters(baseline["params"]) == 620_362
    assert count_parameters(batch_norm["params"]) == 621_322


def test_shapes_of_the_baseline(baseline: Any) -> None:
    assert shapes(baseline) == {"params": SHARED}


def test_shapes_with_batch_norm(batch_norm: Any) -> None:
    scale_and_offset = {name: {"scale": (c,), "bias": (c,)} for name, c in NORM_WIDTHS.items()}
    statistics = {name: {"mean": (c,), "var": (c,)} for name, c in NORM_WIDTHS.items()}
    assert shapes(batch_norm) == {"params": SHARED | scale_and_offset, "batch_stats": statistics}


def test_everything_is_stored_in_float32(batch_norm: Any) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(batch_norm)} == {jnp.dtype("float32")}


def test_both_arms_start_from_the_same_shared_layers(baseline: Any, batch_norm: Any) -> None:
    shared = {name: batch_norm["params"][name] for name in SHARED}
    jax.tree.map(np.testing.assert_array_equal, baseline["params"], shared)


def test_another_seed_starts_elsewhere_in_every_tensor(baseline: Any) -> None:
    other = initialise("none", jax.random.key(43))
    equal = jax.tree.map(lambda a, b: bool(jnp.any(a == b)), baseline, other)
    assert not any(jax.tree.leaves(equal))


def test_dropout_drops_half_of_the_activations_and_doubles_the_rest() -> None:
    model = CNN(widths=(2, 2, 2), hidden=1000)
    x = jax.random.normal(jax.random.key(0), (50, 8, 8, 3))
    variables = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(1))

    def activations(train: bool) -> tuple[np.ndarray, np.ndarray]:
        """What dropout read, and what it wrote."""
        _, state = model.apply(
            variables,
            x,
            train=train,
            rngs={"dropout": jax.random.key(2)},
            capture_intermediates=lambda module, _: module.name in ("dense1", "dropout"),
            mutable=["intermediates"],
        )
        (before,), (after,) = (
            state["intermediates"][name]["__call__"] for name in ("dense1", "dropout")
        )
        return np.maximum(before, 0), np.asarray(after)

    before, after = activations(train=True)
    kept = after != 0
    np.testing.assert_array_equal(after[kept], 2 * before[kept])
    positive = before > 0
    count = positive.sum()
    assert count > 10_000
    # Five standard deviations of a fair coin.
    assert abs(kept[positive].mean() - 0.5) < 5 * 0.5 / np.sqrt(count)
    np.testing.assert_array_equal(*activations(train=False))


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="instanse"):
        jax.eval_shape(functools.partial(initialise, "instanse"), jax.random.key(0))
