"""The residual networks: names, shared layers, initial values, options. Their numbers: golden."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cifar_jax.core.resnet import Block, Layers, ResNet

SMALL = {"blocks": (1, 1), "widths": (4, 8), "num_classes": 5, "norm_groups": 2}
X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)


def shapes(model: nn.Module) -> Any:
    """Of the variables of a network."""
    return jax.eval_shape(lambda key: model.init(key, X, train=False), jax.random.key(0))


def made_up(model: nn.Module) -> Any:
    """Variables with values of a network that has been trained."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda s: rng.uniform(0.1, 0.5, s.shape).astype(s.dtype), shapes(model))


def initial(model: ResNet, name: str, seed: int = 0) -> np.ndarray:
    """Return one parameter's initial values, without compiling the others."""

    def draw(key: jax.Array) -> jax.Array:
        return flatten_dict(model.init(key, X, train=False)["params"], sep=".")[name]

    return np.asarray(jax.jit(draw)(jax.random.key(seed)))


@pytest.mark.parametrize("size", [3, 1])
@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (2, 5, 7, 4)])
def test_strided_convolutions_are_numpys_windows(shape: tuple[int, ...], size: int) -> None:
    """PyTorch's padding, of size // 2 on all sides; XLA's "SAME" would begin a pixel later."""

    class Conv(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return Layers("batch", "pad", True, 8, 0.9, ()).conv(x, 5, size, 2, "conv")

    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(size, size, shape[-1], 5)).astype(np.float32)
    border = size // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    expected = np.einsum("nhwcij,ijck->nhwk", windows[:, ::2, ::2], kernel)
    found = Conv().apply({"params": {"conv": {"kernel": kernel}}}, x)
    assert found.shape == (2, -(-shape[1] // 2), -(-shape[2] // 2), 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [8, 7])
def test_padding_shortcut_skips_positions_and_adds_zero_channels(side: int) -> None:
    """With a last scale of zero a block is its shortcut."""
    x = X[:, :side, :side]
    block = Block(Layers("batch", "pad", True, 8, 0.9, ()), 8, 2)
    y = block.apply(block.init(jax.random.key(0), x, train=False), x, train=False)
    np.testing.assert_array_equal(y[..., :3], np.maximum(x[:, ::2, ::2], 0))
    assert y.shape == (3, 4, 4, 8)
    assert not y[..., 3:].any()


def test_names_are_torchvisions() -> None:
    names = list(flatten_dict(shapes(ResNet(**SMALL, shortcut="project")), sep="."))
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
    none, batch, group = (flatten_dict(v["params"], sep=".") for v in found.values())
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
    norms = ("norm1", "layer1.0.norm1", "layer1.0.norm2")
    model = ResNet(**options, frozen_norms=norms)
    variables = made_up(model)
    frozen, state = model.apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(frozen, model.apply(variables, X, train=False))
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
    partly = ResNet(**options, frozen_norms=norms[:2])
    trained, state = partly.apply(variables, X, train=True, mutable=["batch_stats"])
    assert not np.allclose(trained, frozen)
    changed = jax.tree.map(
        lambda new, old: bool((new != old).all()), state["batch_stats"], variables["batch_stats"]
    )
    names = {name for name, all_ in flatten_dict(changed, sep=".").items() if all_}
    assert names == {"layer1.0.norm2.mean", "layer1.0.norm2.var"}


def test_dropout_is_of_the_means_before_the_last_layer() -> None:
    model = ResNet(**SMALL, dropout=0.5, norm="none")
    variables = made_up(model)
    apply = functools.partial(model.apply, variables, X)
    first, second = (apply(train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(
        apply(train=False), ResNet(**SMALL, norm="none").apply(variables, X, train=False)
    )


def test_groups_that_do_not_divide_the_channels_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"groups \(3\) does not divide.* channels \(4\)"):
        shapes(ResNet(**SMALL | {"norm": "group", "norm_groups": 3}))


def test_logits_are_float32_and_layers_compute_in_the_dtype_of_the_input() -> None:
    model = ResNet(**SMALL)
    logits, state = model.apply(
        made_up(model),
        jnp.asarray(X, jnp.bfloat16),
        train=False,
        capture_intermediates=lambda module, _: module.name not in (None, "fc", "dropout"),
        mutable=["intermediates"],
    )
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state["intermediates"])}
    assert kinds == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32
