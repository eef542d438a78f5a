"""The norms against their definition in NumPy, float64, and against PyTorch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.models.norms import BatchNorm, norm_layer

pytestmark = pytest.mark.optimised

EPSILON = 1e-5
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


def draw(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) * [1, 2, 3, 4, 0.1] + 1.5).astype(np.float32)


def apply_in_training(x: np.ndarray) -> tuple[jax.Array, dict[str, Any]]:
    return BatchNorm().apply(VARIABLES, x, train=True, mutable=["batch_stats"])


def standardised(x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    params = VARIABLES["params"]
    x = x.astype(np.float64)
    return (x - mean) / np.sqrt(var + EPSILON) * params["scale"] + params["bias"]


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


def test_evaluation_uses_the_running_statistics_and_leaves_them() -> None:
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
    """Values and all gradients; groups of neighbouring channels, whatever the layout."""
    rng = np.random.default_rng(1)
    x, g = (rng.normal(1, 2, shape).astype(np.float32) for _ in range(2))
    params = {
        "scale": np.linspace(0.5, 2, shape[-1], dtype=np.float32),
        "bias": np.linspace(-1, 1, shape[-1], dtype=np.float32),
    }
    layer = norm_layer(norm, groups=2, momentum=0.9, name="norm")
    assert jax.tree.map(jnp.shape, layer.init(jax.random.key(0), x, train=True)) == {
        "params": {"scale": shape[-1:], "bias": shape[-1:]}
    }
    y, pull = jax.vjp(lambda p, x: layer.apply({"params": p}, x, train=True), params, x)
    d_params, d_x = pull(g)
    expected = of_torch(norm, x, g)
    for ours, theirs in zip((y, d_x, d_params["scale"], d_params["bias"]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("norm", "groups"), [("layer", 1), ("group", 2)])
def test_norms_of_a_dense_layer_are_of_each_image(norm: str, groups: int) -> None:
    x = np.random.default_rng(1).normal(3, 2, (7, 8)).astype(np.float32)
    layer = norm_layer(norm, groups=2, momentum=0.9, name="norm")
    y = layer.apply(layer.init(jax.random.key(0), x, train=False), x, train=False)
    rows = x.astype(np.float64).reshape(7, groups, -1)
    standard = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1) + EPSILON)[..., None]
    np.testing.assert_allclose(y, standard.reshape(7, 8), rtol=1e-4, atol=1e-5)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    layer = norm_layer("group", groups=3, momentum=0.9, name="norm")
    with pytest.raises(ValueError, match="8 channels cannot be divided into 3 groups"):
        layer.init(jax.random.key(0), jnp.zeros((2, 8)), train=True)
