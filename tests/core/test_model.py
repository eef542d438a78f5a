"""The CNN: parameters, initial values, layers shared by two arms, one block, dropout, freezing."""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from x64 import enable_x64

from cifar_jax.core.model import CNN

SHARED = {
    "conv1": {"kernel": (3, 3, 3, 32), "bias": (32,)},
    "conv2": {"kernel": (3, 3, 32, 64), "bias": (64,)},
    "conv3": {"kernel": (3, 3, 64, 128), "bias": (128,)},
    "dense1": {"kernel": (2048, 256), "bias": (256,)},
    "dense2": {"kernel": (256, 10), "bias": (10,)},
}
FAN_IN = {"conv1": 27, "conv2": 288, "conv3": 576, "dense1": 2048, "dense2": 256}
NORM_WIDTHS = {"norm1": 32, "norm2": 64, "norm3": 128, "norm4": 256}
SEEDS = 4


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


def count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameter_counts_are_the_reports(baseline: Any, batch_norm: Any) -> None:
    assert count(baseline["params"]) == 620_362
    assert count(batch_norm["params"]) == 621_322


def test_shapes_of_the_baseline(baseline: Any) -> None:
    assert shapes(baseline) == {"params": SHARED}


def test_shapes_with_batch_norm(batch_norm: Any) -> None:
    scale_and_bias = {name: {"scale": (c,), "bias": (c,)} for name, c in NORM_WIDTHS.items()}
    statistics = {name: {"mean": (c,), "var": (c,)} for name, c in NORM_WIDTHS.items()}
    assert shapes(batch_norm) == {"params": SHARED | scale_and_bias, "batch_stats": statistics}


@pytest.mark.parametrize(("norm", "layers"), [("layer", 4), ("instance", 3), ("group", 4)])
def test_other_norms_have_parameters_and_no_statistics(norm: str, layers: int) -> None:
    """With instance norm the dense layer has no norm, because it has no positions."""
    found = jax.eval_shape(functools.partial(initialise, norm), jax.random.key(0))
    names = {f"norm{i + 1}": NORM_WIDTHS[f"norm{i + 1}"] for i in range(layers)}
    expected = {name: {"scale": (c,), "bias": (c,)} for name, c in names.items()}
    assert shapes(found) == {"params": SHARED | expected}


def test_everything_is_stored_in_float32(batch_norm: Any) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(batch_norm)} == {jnp.dtype("float32")}


def test_both_arms_start_from_the_same_shared_layers(baseline: Any, batch_norm: Any) -> None:
    shared = {name: batch_norm["params"][name] for name in SHARED}
    jax.tree.map(np.testing.assert_array_equal, baseline["params"], shared)


def test_another_seed_starts_elsewhere_in_every_tensor(baseline: Any) -> None:
    other = initialise("none", jax.random.key(43))
    equal = jax.tree.map(lambda a, b: bool(jnp.any(a == b)), baseline, other)
    assert not any(jax.tree.leaves(equal))


def test_an_unknown_norm_is_an_error() -> None:
    with pytest.raises(KeyError, match="instanse"):
        jax.eval_shape(functools.partial(initialise, "instanse"), jax.random.key(0))


@pytest.fixture(scope="module")
def draws() -> dict[str, dict[str, np.ndarray]]:
    """Variables of SEEDS draws, on a leading axis."""
    keys = jax.random.split(jax.random.key(0), SEEDS)
    return jax.device_get(jax.vmap(functools.partial(initialise, "batch"))(keys))


@pytest.mark.parametrize("leaf", ["kernel", "bias"])
@pytest.mark.parametrize("layer", FAN_IN)
def test_values_are_uniform_within_one_over_root_fan_in(draws, layer: str, leaf: str) -> None:
    # In units of the bound: U(-1, 1) has moments 0, 1/3 and 1/5.
    values = draws["params"][layer][leaf].astype(np.float64).ravel() * np.sqrt(FAN_IN[layer])
    n = values.size
    assert np.abs(values).max() <= 1 + 1e-6
    # P(|u| < 1 - 20 / n for all n) = exp(-20)
    assert values.min() < -1 + 40 / n
    assert values.max() > 1 - 40 / n
    # Five standard errors of the mean and the variance.
    assert abs(values.mean()) < 5 * np.sqrt(1 / 3 / n)
    assert abs(np.mean(values**2) - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / n)


def test_batch_norm_starts_as_the_identity(draws) -> None:
    starts = {"scale": 1, "bias": 0, "mean": 0, "var": 1}
    for index in range(1, 5):
        leaves = draws["params"][f"norm{index}"] | draws["batch_stats"][f"norm{index}"]
        assert leaves.keys() == starts.keys()
        for name, leaf in leaves.items():
            assert np.all(leaf == starts[name]), name


def test_kernel_and_bias_are_drawn_independently(draws) -> None:
    kernel, bias = (draws["params"]["dense2"][leaf].ravel() for leaf in ("kernel", "bias"))
    assert not np.isin(bias, kernel).all()


class OneBlock(CNN):
    """Only the first block of the network."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.block(x, 1, train)


def numpy_conv3x3(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i, j in itertools.product(range(3), range(3))
    )


def numpy_conv3x3_gradients(
    x: np.ndarray, kernel: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Differentiate the definition: y[p] = sum_ij x[p + ij - 1] kernel[ij]."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for i, j in itertools.product(range(3), range(3)):
        d_padded[:, i : i + height, j : j + width] += g @ kernel[i, j].T
        seen = padded[:, i : i + height, j : j + width]
        d_kernel[i, j] = np.einsum("nhwc,nhwk->ck", seen, g)
    return d_padded[:, 1:-1, 1:-1], d_kernel


def numpy_pool_gradient(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Each 2x2 window's gradient goes to its first largest element."""
    out = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*g.shape):
        window = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        di, dj = divmod(int(window.argmax()), 2)
        out[n, 2 * i + di, 2 * j + dj, c] = g[n, i, j, c]
    return out


@pytest.mark.parametrize("size", [(6, 4), (5, 7)], ids=str)
def test_a_block_is_numpys_convolution_relu_and_pooling(size: tuple[int, int]) -> None:
    """Values and all gradients in float64; like PyTorch's, the pooling drops an odd row."""
    rng = np.random.default_rng(0)
    half = (size[0] // 2, size[1] // 2)
    x, kernel, bias, g = (
        rng.standard_normal(shape) for shape in ((2, *size, 3), (3, 3, 3, 4), (4,), (2, *half, 4))
    )
    with enable_x64(True):
        params = {"conv1": {"kernel": kernel, "bias": bias}}
        model = OneBlock(widths=(4,))
        y, pull = jax.vjp(lambda p, x: model.apply({"params": p}, x, train=True), params, x)
        d_params, d_x = pull(jnp.asarray(g))
    whole = numpy_conv3x3(x, kernel) + bias
    positive = np.maximum(whole, 0)
    even = positive[:, : 2 * half[0], : 2 * half[1]]
    wanted = even.reshape(2, half[0], 2, half[1], 2, 4).max((2, 4))
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-12)
    d_whole = numpy_pool_gradient(positive, g) * (whole > 0)
    expected = numpy_conv3x3_gradients(x, kernel, d_whole)
    np.testing.assert_allclose(d_x, expected[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(d_params["conv1"]["kernel"], expected[1], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(d_params["conv1"]["bias"], d_whole.sum((0, 1, 2)), rtol=1e-11)


def test_another_activation_replaces_relu_everywhere() -> None:
    """An activation of half of x makes a network that is affine after its pooling."""
    x = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    model = CNN(activation=lambda y: y / 2, widths=(4,), hidden=8)
    variables = model.init(jax.random.key(1), x, train=False)
    params = variables["params"]
    whole = numpy_conv3x3(np.asarray(x), np.asarray(params["conv1"]["kernel"]))
    y = (whole + params["conv1"]["bias"]).max((1, 2)) / 2
    y = (y @ params["dense1"]["kernel"] + params["dense1"]["bias"]) / 2
    expected = y @ params["dense2"]["kernel"] + params["dense2"]["bias"]
    np.testing.assert_allclose(model.apply(variables, x, train=False), expected, rtol=1e-5)


def test_dropout_drops_half_of_the_activations_and_doubles_the_others() -> None:
    model = CNN(widths=(2, 2, 2), hidden=1000)
    x = jax.random.normal(jax.random.key(0), (50, 8, 8, 3))
    variables = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(1))

    def activations(train: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return dropout's input and output."""
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
    number = positive.sum()
    assert number > 10_000
    # Five standard deviations of a fair coin.
    assert abs(kept[positive].mean() - 0.5) < 5 * 0.5 / np.sqrt(number)
    np.testing.assert_array_equal(*activations(train=False))


def test_a_frozen_norm_trains_as_it_evaluates_and_keeps_its_statistics() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, 3))
    options = {"norm": "batch", "widths": (4,), "hidden": 8, "dropout": 0.0}
    variables = CNN(**options).init(jax.random.key(1), x, train=False)
    variables["batch_stats"] = jax.tree.map(lambda s: s + 0.5, variables["batch_stats"])

    def trained(frozen: tuple[str, ...]) -> tuple[jax.Array, Any]:
        model = CNN(**options, frozen_norms=frozen)
        logits, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return logits, new["batch_stats"]

    evaluated = CNN(**options).apply(variables, x, train=False)
    logits, stats = trained(("norm1", "norm2"))
    np.testing.assert_array_equal(logits, evaluated)
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
    logits, stats = trained(("norm1",))
    assert not np.allclose(logits, evaluated)
    jax.tree.map(np.testing.assert_array_equal, stats["norm1"], variables["batch_stats"]["norm1"])
    assert (stats["norm2"]["mean"] != variables["batch_stats"]["norm2"]["mean"]).all()
