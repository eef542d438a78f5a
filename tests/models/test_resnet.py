"""The residual networks: strided convolutions, names, shared layers, initial values, options."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.config import MODELS
from cifar_jax.models import strided
from cifar_jax.models.paths import named_leaves
from cifar_jax.models.registry import first_width, network
from cifar_jax.models.resnet import ResNet, pad_channels

pytestmark = pytest.mark.optimised

SMALL = {"blocks": (1, 1), "widths": (4, 8), "num_classes": 5, "norm_groups": 2}
X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)


def shapes(model: ResNet) -> Any:
    """Of the variables of a network."""
    return jax.eval_shape(lambda key: model.init(key, X, train=False), jax.random.key(0))


def made_up(model: ResNet) -> Any:
    """Variables with values of a network that has been trained, but for scales of zero."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda s: rng.uniform(0.1, 0.5, s.shape).astype(s.dtype), shapes(model))


def initial(model: ResNet, name: str, seed: int = 0) -> np.ndarray:
    """One parameter's initial values; of the rest nothing is compiled."""

    def draw(key: jax.Array) -> jax.Array:
        return named_leaves(model.init(key, X, train=False)["params"])[name]

    return np.asarray(jax.jit(draw)(jax.random.key(seed)))


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (2, 5, 7, 4)])
def test_strided_convolutions_are_xlas_in_values_and_gradients(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(3, 3, shape[-1], 5)).astype(np.float32)
    functions = [
        functools.partial(strided.conv3x3_stride2, formulation=f) for f in ("patches", "xla")
    ]
    y, pull = zip(*(jax.vjp(f, x, kernel) for f in functions), strict=True)
    assert y[0].shape == (2, -(-shape[1] // 2), -(-shape[2] // 2), 5)
    g = rng.normal(size=y[0].shape).astype(np.float32)
    for ours, theirs in zip((y[0], *pull[0](g)), (y[1], *pull[1](g)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_projection_is_xlas() -> None:
    kernel = np.random.default_rng(2).normal(size=(1, 1, 3, 5)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        X, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(strided.conv1x1(X, kernel, 2), expected, rtol=1e-5, atol=1e-5)


def test_padding_shortcut_skips_positions_and_adds_zero_channels() -> None:
    y = pad_channels(jnp.asarray(X), 8, 2)
    np.testing.assert_array_equal(y[..., :3], X[:, ::2, ::2])
    assert y.shape == (3, 4, 4, 8)
    assert not y[..., 3:].any()


def test_names_are_torchvisions() -> None:
    names = list(named_leaves(shapes(ResNet(**SMALL, shortcut="project"))))
    expected = {
        "params.conv1.kernel",
        "params.norm1.scale",
        "params.layer1.0.conv2.kernel",
        "params.layer2.0.downsample.0.kernel",
        "params.layer2.0.downsample.1.bias",
        "params.fc.bias",
        "batch_stats.layer2.0.downsample.1.var",
    }
    assert expected <= set(names)
    assert not [name for name in names if "conv" in name and name.endswith("bias")]


def test_only_batch_norm_has_state_and_only_without_norm_there_are_biases() -> None:
    found = {norm: shapes(ResNet(**SMALL, norm=norm)) for norm in ("none", "batch", "group")}
    assert [norm for norm, variables in found.items() if "batch_stats" in variables] == ["batch"]
    none, batch, group = (named_leaves(v["params"]) for v in found.values())
    assert {name for name in none if name not in batch} == {
        name.replace("kernel", "bias") for name in none if "conv" in name and "kernel" in name
    }
    assert batch == group


def test_arms_share_initial_values() -> None:
    name = "layer2.0.conv2.kernel"
    none, batch = (initial(ResNet(**SMALL, norm=norm), name) for norm in ("none", "batch"))
    np.testing.assert_array_equal(none, batch)
    assert not np.any(initial(ResNet(**SMALL, norm="none"), name, seed=1) == none)


def test_initial_distributions() -> None:
    model = ResNet(blocks=(1,), widths=(256,), norm="none")
    kernel = initial(model, "layer1.0.conv1.kernel")
    std = np.sqrt(2 / (9 * 256))
    # 590,000 draws: the standard deviation is known to 0.1 %, and 3 of 1000 lie beyond 3 of it.
    assert kernel.std() == pytest.approx(std, rel=0.01)
    assert np.mean(np.abs(kernel) > 3 * std) == pytest.approx(0.0027, rel=0.2)
    assert not initial(model, "conv1.bias").any()
    assert np.abs(initial(model, "fc.kernel")).max() == pytest.approx(1 / 16, rel=0.01)


@pytest.mark.parametrize(("norm", "zero"), [("batch", True), ("group", True), ("batch", False)])
def test_the_last_scale_of_each_block_can_start_at_zero(norm: str, zero: bool) -> None:
    model = ResNet(**SMALL, norm=norm, zero_init=zero)
    assert initial(model, "layer2.0.norm2.scale").any() == (not zero)
    assert initial(model, "layer2.0.norm1.scale").all()


@pytest.mark.parametrize("shortcut", ["pad", "none"])
def test_a_block_whose_last_norm_is_zero_is_its_shortcut(shortcut: str) -> None:
    model = ResNet(blocks=(1,), widths=(4,), num_classes=5, shortcut=shortcut)
    variables = made_up(model)
    last = variables["params"]["layer1"]["0"]["norm2"]
    last.update(scale=0 * last["scale"], bias=0 * last["bias"])
    _, state = model.apply(
        variables, X, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    found = state["intermediates"]
    stem = np.maximum(found["norm1"]["__call__"][0], 0)
    expected = stem if shortcut == "pad" else 0 * stem
    np.testing.assert_array_equal(found["layer1"]["__call__"][0], expected)


def test_a_frozen_norm_normalises_as_in_evaluation_and_keeps_its_statistics() -> None:
    options = {"blocks": (1,), "widths": (4,), "num_classes": 5}
    model = ResNet(**options, frozen=("norm1", "layer*"))
    variables = made_up(model)
    frozen, state = model.apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(frozen, model.apply(variables, X, train=False))
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
    partly = ResNet(**options, frozen=("*.scale",))
    trained, _ = partly.apply(variables, X, train=True, mutable=["batch_stats"])
    assert not np.allclose(trained, frozen)


def test_every_name_is_a_network_whose_widths_its_first_divides() -> None:
    for name in MODELS:
        model = network(
            name, num_classes=3, norm="batch", dropout=0.1, norm_groups=4, norm_momentum=0.9
        )
        assert (model.num_classes, model.dropout, model.norm_groups) == (3, 0.1, 4)
        assert model.widths[0] == first_width(name)
        assert all(width % first_width(name) == 0 for width in model.widths)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="4 channels cannot be divided into 3 groups"):
        shapes(ResNet(**SMALL | {"norm": "group", "norm_groups": 3}))
