"""The norms against their definition in NumPy, float64, and against PyTorch."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from x64 import enable_x64

from cifar_jax.core.norms import EPSILON, BatchNorm, Norm, norm_layer
from cifar_jax.methods.ghost import Ghost

pytestmark = pytest.mark.optimised

CHANNELS = 5
VARIABLES = {
    "params": {
        "scale": np.linspace(0.5, 2, CHANNELS, dtype=np.float32),
        "bias": np.linspace(-1, 1, CHANNELS, dtype=np.float32),
    },
    "batch_stats": {
        "mean": np.linspace(-3, 3, CHANNELS, dtype=np.float32),
        "var": np.linspace(0.1, 4, CHANNELS, dtype=np.float32),
    },
}
SHAPES = [(2, CHANNELS), (7, CHANNELS), (3, 4, 2, CHANNELS)]


class Layer(nn.Module):
    """One norm layer, called "norm"."""

    norm: Norm
    groups: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = True) -> jax.Array:
        return norm_layer(self.norm, "norm", groups=self.groups)(x, train=train)


def draw(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) * [1, 2, 3, 4, 0.1] + 1.5).astype(np.float32)


@jax.jit
def apply_in_training(x: np.ndarray) -> tuple[jax.Array, dict[str, Any]]:
    return BatchNorm().apply(VARIABLES, x, train=True, mutable=["batch_stats"])


def standardised(x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    params = VARIABLES["params"]
    x = x.astype(np.float64)
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def test_epsilon_is_pytorchs() -> None:
    assert EPSILON == 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_training_normalises_by_the_biased_variance_of_the_batch(shape: tuple[int, ...]) -> None:
    x = draw(shape)
    rows = x.reshape(-1, CHANNELS).astype(np.float64)
    expected = standardised(x, rows.mean(0), rows.var(0))
    np.testing.assert_allclose(apply_in_training(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics_take_a_tenth_of_the_mean_and_unbiased_variance(
    shape: tuple[int, ...],
) -> None:
    x = draw(shape)
    rows = x.reshape(-1, CHANNELS).astype(np.float64)
    old = VARIABLES["batch_stats"]
    new = apply_in_training(x)[1]["batch_stats"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


def test_evaluation_uses_the_running_statistics_without_changing_them() -> None:
    x = draw((7, CHANNELS))
    y, state = BatchNorm().apply(VARIABLES, x, train=False, mutable=["batch_stats"])
    old = VARIABLES["batch_stats"]
    np.testing.assert_allclose(y, standardised(x, old["mean"], old["var"]), rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], old)


@pytest.mark.parametrize("train", [False, True])
def test_initialisation_does_not_count_as_a_batch(train: bool) -> None:
    x = jnp.asarray(draw((7, CHANNELS)))
    stats = BatchNorm().init(jax.random.key(0), x, train=train)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(CHANNELS))
    np.testing.assert_array_equal(stats["var"], np.ones(CHANNELS))


def test_another_momentum_weighs_the_old_value() -> None:
    x = draw((7, CHANNELS))
    norm = BatchNorm(momentum=0.25)
    _, state = norm.apply(VARIABLES, x, train=True, mutable=["batch_stats"])
    expected = 0.25 * VARIABLES["batch_stats"]["mean"] + 0.75 * x.mean(0)
    np.testing.assert_allclose(state["batch_stats"]["mean"], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 4, CHANNELS), (6, CHANNELS)])
def test_batch_norm_value_and_all_gradients_in_float64(shape: tuple[int, ...]) -> None:
    with enable_x64(True):
        variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), VARIABLES)
        x = np.random.default_rng(6).normal(size=shape)
        axes = tuple(range(len(shape) - 1))

        @jax.jit
        def apply(x: jax.Array, params: Any) -> jax.Array:
            known = variables | {"params": params}
            return BatchNorm().apply(known, x, train=True, mutable=["batch_stats"])[0]

        wanted = standardised(x, x.mean(axes), x.var(axes))
        y = apply(x, variables["params"])
        assert y.dtype == np.float64
        np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-12)
        check_grads(apply, (x, variables["params"]), 1, modes=["rev"])


def test_batch_norm_keeps_its_digits_far_from_zero() -> None:
    """Mean square minus squared mean would lose all of float32's digits here."""
    x = (np.random.default_rng(7).standard_normal((64, CHANNELS)) + 4096).astype(np.float32)
    y, state = BatchNorm(momentum=0.0).apply(VARIABLES, x, train=True, mutable=["batch_stats"])
    rows, stats = x.astype(np.float64), state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["var"], rows.var(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(y, standardised(x, rows.mean(0), rows.var(0)), atol=2e-3)


@pytest.mark.parametrize("norm", ["layer", "instance", "group"])
def test_other_norms_keep_their_digits_far_from_zero(norm: str) -> None:
    noise = np.random.default_rng(7).standard_normal((2, 8, 8, 4)).astype(np.float32)
    variables = jax.jit(Layer(norm).init)(jax.random.key(0), noise)
    apply = jax.jit(Layer(norm).apply)
    x = noise + 4096
    expected = apply(variables, (x.astype(np.float64) - 4096).astype(np.float32))
    np.testing.assert_allclose(apply(variables, x), expected, atol=2e-3)


def of_torch(norm: str, x: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    """Output of PyTorch's layer, and its gradients by x, scale and bias; float64."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    channels = x.shape[-1]
    layer = {
        "layer": lambda: torch.nn.GroupNorm(1, channels),
        "instance": lambda: torch.nn.InstanceNorm2d(channels, affine=True),
        "group": lambda: torch.nn.GroupNorm(2, channels),
    }[norm]().double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, channels))
        layer.bias.copy_(torch.linspace(-1, 1, channels))
    images = torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64)).requires_grad_()
    y = layer(images)
    y.backward(torch.from_numpy(np.moveaxis(g, -1, 1).astype(np.float64)))
    move = [np.moveaxis(t.detach().numpy(), 1, -1) for t in (y, images.grad)]
    return [*move, layer.weight.grad.numpy(), layer.bias.grad.numpy()]


@pytest.mark.parametrize("norm", ["layer", "instance", "group"])
@pytest.mark.parametrize("shape", [(3, 4, 2, 6), (2, 8, 8, 8)])
def test_layer_instance_and_group_norm_are_pytorchs(norm: str, shape: tuple[int, ...]) -> None:
    """Values and all gradients; groups have neighbouring channels."""
    rng = np.random.default_rng(1)
    x, g = (rng.normal(1, 2, shape).astype(np.float32) for _ in range(2))
    params = {
        "scale": np.linspace(0.5, 2, shape[-1], dtype=np.float32),
        "bias": np.linspace(-1, 1, shape[-1], dtype=np.float32),
    }
    layer = Layer(norm)
    first = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert jax.tree.map(lambda leaf: leaf.shape, first) == {
        "params": {"norm": {"scale": shape[-1:], "bias": shape[-1:]}}
    }

    @jax.jit
    def value_and_gradients(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        y, pull = jax.vjp(lambda p, x: layer.apply({"params": {"norm": p}}, x), params, x)
        return y, pull(g)

    y, (d_params, d_x) = value_and_gradients(params, x)
    expected = of_torch(norm, x, g)
    for ours, theirs in zip((y, d_x, d_params["scale"], d_params["bias"]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("norm", "groups"), [("layer", 1), ("group", 2), ("instance", 8)])
@pytest.mark.parametrize("train", [False, True])
def test_statistics_are_of_each_image_and_group(norm: str, groups: int, train: bool) -> None:
    """In training and evaluation alike. Instance norm of one position would be zero."""
    shape = (7, 8) if norm != "instance" else (7, 3, 5, 8)
    x = np.random.default_rng(1).normal(3, 2, shape).astype(np.float32)
    layer = Layer(norm)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    y = jax.jit(partial(layer.apply, train=train))(variables, x)
    parts = x.astype(np.float64).reshape(7, -1, groups, 8 // groups)
    centred = parts - parts.mean((1, 3), keepdims=True)
    standard = centred / np.sqrt(parts.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, standard.reshape(shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group", Ghost(2)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_result_has_the_dtype_of_the_input(norm: Norm, dtype: Any) -> None:
    x = jnp.ones((2, 4, 4, 8), dtype)
    variables = jax.eval_shape(Layer(norm).init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = partial(Layer(norm).apply, mutable=["batch_stats"])
    y, _ = jax.eval_shape(apply, variables, x)
    assert y.dtype == dtype


def test_groups_that_do_not_divide_the_channels_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"groups \(3\) does not divide.* channels \(8\)"):
        Layer("group", groups=3).init(jax.random.key(0), jnp.zeros((2, 8)))
