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

SMALL = {"blocks": (1, 1), "widths": (4, 8), "num_classes": 5, "norm_groups": 2}
X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def initialise(model: ResNet, key: jax.Array) -> Any:
    return model.init(key, X, train=False)


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
    names = list(named_leaves(initialise(ResNet(**SMALL, shortcut="project"), jax.random.key(0))))
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


def test_arms_share_initial_values_and_only_batch_norm_has_state() -> None:
    found = {
        norm: initialise(ResNet(**SMALL, norm=norm), jax.random.key(1))
        for norm in ("none", "batch", "group")
    }
    assert [norm for norm, variables in found.items() if "batch_stats" in variables] == ["batch"]
    none, batch, group = (named_leaves(v["params"]) for v in found.values())
    assert {name for name in none if name not in batch} == {
        name.replace("kernel", "bias") for name in none if "conv" in name and "kernel" in name
    }
    for name in none.keys() & batch.keys():
        np.testing.assert_array_equal(none[name], batch[name])
    jax.tree.map(np.testing.assert_array_equal, batch, group)


def test_initial_distributions() -> None:
    model = ResNet(blocks=(1,), widths=(256,), norm="none")
    params = initialise(model, jax.random.key(2))["params"]
    kernel = np.asarray(params["layer1"]["0"]["conv1"]["kernel"])
    std = np.sqrt(2 / (9 * 256))
    # 590,000 draws: the standard deviation is known to 0.1 %, and 3 of 1000 lie beyond 3 of it.
    assert kernel.std() == pytest.approx(std, rel=0.01)
    assert np.mean(np.abs(kernel) > 3 * std) == pytest.approx(0.0027, rel=0.2)
    assert not params["conv1"]["bias"].any()
    assert np.abs(params["fc"]["kernel"]).max() == pytest.approx(1 / 16, rel=0.01)


def test_blocks_start_as_their_shortcuts_with_zero_scales() -> None:
    model = ResNet(**SMALL, zero_init=True, shortcut="project")
    variables = initialise(model, jax.random.key(0))
    scales = {k: v for k, v in named_leaves(variables["params"]).items() if k.endswith("scale")}
    assert {name for name, scale in scales.items() if not scale.any()} == {
        "layer1.0.norm2.scale",
        "layer2.0.norm2.scale",
    }
    _, state = model.apply(
        variables,
        X,
        train=True,
        capture_intermediates=True,
        mutable=["intermediates", "batch_stats"],
    )
    found = state["intermediates"]
    stem = np.maximum(found["norm1"]["__call__"][0], 0)
    np.testing.assert_array_equal(found["layer1"]["__call__"][0], stem)


def test_a_frozen_norm_normalises_as_in_evaluation_and_keeps_its_statistics() -> None:
    model = ResNet(**SMALL, frozen=("norm1", "layer*"))
    variables = initialise(model, jax.random.key(0))
    moved = jax.tree.map(lambda value: value + 0.5, variables["batch_stats"])
    variables = {**variables, "batch_stats": moved}
    frozen, state = model.apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(frozen, model.apply(variables, X, train=False))
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
    partly = ResNet(**SMALL, frozen=("*.scale",))
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
        jax.eval_shape(
            functools.partial(initialise, ResNet(**SMALL | {"norm": "group", "norm_groups": 3})),
            jax.random.key(0),
        )
