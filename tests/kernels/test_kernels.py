"""Every fast body against the plain layer: values, gradients and statistics."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from x64 import enable_x64

from cifar_jax.core.model import CNN
from cifar_jax.core.norms import BatchNorm, Norm
from cifar_jax.core.train import Experiment, init_state
from cifar_jax.kernels import convolution, fast, slow_layers
from cifar_jax.kernels.rewrite import operations
from cifar_jax.methods.ghost import Ghost


class Call(nn.Module):
    """A function, or a module without `train`, as a model."""

    function: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.function(x)


def conv(features: int, size: tuple[int, ...], *rest: Any, **more: Any) -> nn.Module:
    return Call(nn.Conv(features, size, *rest, **more))


def pool(function: Any, *args: Any, **more: Any) -> nn.Module:
    return Call(partial(function, window_shape=args[0], strides=args[1], **more))


def group_norm(groups: int | None, size: int | None = None, **more: Any) -> nn.Module:
    return Call(nn.GroupNorm(groups, size, use_fast_variance=False, **more))


class FlaxNorm(nn.Module):
    options: tuple[tuple[str, Any], ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nn.BatchNorm(not train, momentum=0.9, **dict(self.options))(x)


class Nested(nn.Module):
    """Layers inside jit, checkpoint, scan and cond."""

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.kind == "remat":
            return nn.remat(nn.Conv)(4, (3, 3))(x)
        kernel = self.param("kernel", nn.initializers.normal(), (3, 3, 4, 4))

        def layer(x: jax.Array) -> jax.Array:
            y = jax.lax.conv_general_dilated(
                x,
                kernel.astype(x.dtype),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            return nn.max_pool(y, (3, 3), padding="SAME")

        if self.kind == "jit":
            return jax.jit(layer)(x)
        if self.kind == "cond":
            return jax.lax.cond(x.sum() > 0, layer, lambda x: 2 * layer(x), x)
        return jax.lax.scan(lambda x, _: (layer(x), None), x, length=2)[0]


class Chain(nn.Module):
    """Convolution, activation and pooling, as a user writes them."""

    activation: Callable[[jax.Array], jax.Array]
    shared: bool = False  # The pooling is not the only one that reads the activation.

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (4,))
        y = self.activation(nn.Conv(4, (3, 3))(x)) * scale + 0.5
        pooled = nn.max_pool(y, (2, 2), (2, 2))
        return pooled + y[:, ::2, ::2] if self.shared else pooled


def small(norm: Norm, **more: Any) -> CNN:
    return CNN(norm=norm, widths=(4,), hidden=6, norm_groups=2, dropout=0.0, **more)


CASES = {
    "3x3": (conv(5, (3, 3)), (2, 8, 8, 3)),
    "3x3 odd": (conv(4, (3, 3), use_bias=False), (2, 7, 5, 3)),
    "3x3 valid": (conv(4, (3, 3), padding="VALID"), (2, 9, 6, 3)),
    "3x3 padded": (conv(4, (3, 3), padding=((2, 1), (0, 3))), (2, 6, 7, 3)),
    "3x3 wide": (conv(64, (3, 3)), (1, 6, 5, 64)),
    "3x3 wide valid": (conv(64, (3, 3), padding=((0, 2), (1, 0))), (1, 6, 5, 64)),
    "3x3 narrow": (conv(16, (3, 3)), (5, 6, 8, 16)),
    "3x3 stride 2": (conv(4, (3, 3), 2, padding=((1, 1), (1, 1))), (2, 8, 8, 3)),
    "3x3 stride 2 odd": (conv(4, (3, 3), 2), (2, 7, 9, 3)),
    "3x3 stride 2 valid": (conv(4, (3, 3), (2, 1), padding="VALID"), (2, 8, 7, 3)),
    "3x3 dilated": (conv(4, (3, 3), kernel_dilation=2), (2, 9, 7, 3)),
    "3x3 wider stride": (conv(4, (3, 3), 4), (2, 9, 11, 3)),
    "5x5": (conv(4, (5, 5)), (2, 7, 6, 3)),
    "1x1": (conv(4, (1, 1)), (2, 5, 6, 3)),
    "1x1 stride 2": (conv(4, (1, 1), 2, use_bias=False), (2, 5, 6, 3)),
    "2x2 patches": (conv(4, (2, 2), 2), (2, 6, 6, 3)),
    "1-d": (conv(4, (3,)), (2, 9, 3)),
    "3-d": (conv(4, (3, 3, 3), 2), (1, 5, 4, 6, 3)),
    "grouped": (conv(6, (3, 3), feature_group_count=2), (2, 6, 5, 4)),
    "depthwise": (conv(4, (3, 2), feature_group_count=4), (3, 4, 5, 4)),
    "depthwise stride 2": (conv(8, (2, 3), 2, feature_group_count=4), (5, 5, 4, 4)),
    "transposed": (Call(nn.ConvTranspose(4, (3, 3), (2, 2))), (2, 4, 5, 3)),
    "max 2x2": (pool(nn.max_pool, (2, 2), (2, 2)), (2, 8, 6, 3)),
    "max 2x2 odd": (pool(nn.max_pool, (2, 2), (2, 2)), (2, 7, 5, 3)),
    "max 2x2 odd same": (pool(nn.max_pool, (2, 2), (2, 2), padding="SAME"), (2, 7, 5, 3)),
    "max 3x3 stride 2": (pool(nn.max_pool, (3, 3), (2, 2), padding=((1, 1), (1, 1))), (2, 8, 7, 3)),
    "mean 2x2": (pool(nn.avg_pool, (2, 2), (2, 2)), (2, 7, 6, 3)),
    "mean 3x3": (pool(nn.avg_pool, (3, 3), (1, 2), padding="SAME"), (2, 7, 6, 3)),
    "mean of all": (pool(nn.avg_pool, (7, 6), (7, 6)), (2, 7, 6, 3)),
    "relu": (Call(nn.relu), (4, 3, 5)),
    "mish": (Call(jax.nn.mish), (4, 3, 5)),  # Has a derivative of its own with two operands.
    "batch norm": (BatchNorm(), (4, 3, 3, 5)),
    "group norm": (group_norm(2), (4, 3, 4, 6)),
    "group norm by size": (group_norm(None, 3), (4, 7, 6)),
    "group norm alone": (group_norm(2, use_scale=False, use_bias=False), (4, 6)),
    "group norm, fast variance": (Call(nn.GroupNorm(2)), (4, 3, 4, 6)),
    "flax batch norm": (FlaxNorm(), (4, 3, 3, 5)),
    "flax batch norm alone": (FlaxNorm((("use_scale", False), ("use_bias", False))), (7, 5)),
    "flax batch norm, first axis": (FlaxNorm((("axis", 1),)), (4, 3, 3, 5)),
    **{
        f"nested in {kind}": (Nested(kind), (2, 6, 5, 4))
        for kind in ("jit", "remat", "scan", "cond")
    },
    **{
        f"cnn {norm}": (small(norm), (3, 8, 8, 3))
        for norm in ("none", "batch", "layer", "instance", "group")
    },
    "cnn ghost": (small(Ghost(2)), (4, 8, 8, 3)),
    "chain silu": (Chain(nn.silu), (2, 6, 8, 3)),
    "chain relu, tiled": (Chain(nn.relu), (2, 8, 8, 16)),
    "chain, leaky": (Chain(nn.leaky_relu), (2, 4, 6, 3)),
    "chain, shared": (Chain(nn.gelu, shared=True), (2, 6, 8, 3)),
    "cnn silu": (small("none", activation=nn.silu), (3, 8, 8, 3)),
    "cnn frozen": (small("batch", frozen_norms=("norm1",)), (3, 8, 8, 3)),
    "cnn odd": (small("batch"), (3, 7, 7, 3)),
    **{
        f"cnn tiled {norm}": (CNN(norm=norm, widths=(16, 6), hidden=4, dropout=0.0), (2, 8, 8, 3))
        for norm in ("none", "batch")
    },
}


def problem(layer: nn.Module, shape: tuple[int, ...], dtype: Any) -> tuple[Any, np.ndarray]:
    """Images, and parameters and statistics that no layer could take for others.

    NumPy draws them: JAX would compile a program a shape.
    """
    rng = np.random.default_rng(7)
    init = jax.eval_shape(partial(layer.init, train=False), jax.random.key(0), np.zeros(shape))

    def draw(leaf: Any) -> np.ndarray:
        drawn = rng.normal(0, 0.3, leaf.shape) if leaf.ndim > 1 else rng.uniform(0.3, 1, leaf.shape)
        return drawn.astype(dtype)

    return jax.tree.map(draw, init), rng.standard_normal(shape).astype(dtype)


@partial(jax.jit, static_argnums=(0, 3))
def outcome(model: Any, variables: Any, x: jax.Array, train: bool = True) -> Any:
    """Value, statistics, and gradients by parameters and images."""

    def scored(params: Any, x: jax.Array) -> Any:
        y, updates = model.apply(
            {**variables, "params": params}, x, train=train, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(y + 0.1) * jnp.arange(1, y.size + 1).reshape(y.shape)), (y, updates)

    return jax.grad(scored, argnums=(0, 1), has_aux=True)(variables.get("params", {}), x)


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    actual, expected = (jax.tree.map(np.asarray, tree) for tree in (actual, expected))
    pairs = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(actual), strict=True)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for (path, wanted), found in pairs:
        assert found.dtype == wanted.dtype
        # A bias before a batch norm has no gradient: what is found there is rounding noise.
        limit = tolerance * max(np.abs(wanted).max(), scale * 1e-2)
        np.testing.assert_allclose(
            found, wanted, rtol=0, atol=limit, err_msg=jax.tree_util.keystr(path)
        )


@pytest.fixture
def float64() -> Iterator[None]:
    with enable_x64(True):
        yield


ON_GPU = ["3x3 padded", "3x3 stride 2", "grouped", "transposed", "cnn batch"]
RUNS = [("cpu", name) for name in CASES] + [("gpu", name) for name in ON_GPU]


@pytest.mark.parametrize(("platform", "name"), RUNS)
def test_in_float64_the_fast_body_is_the_plain_one(platform: str, name: str, float64: None) -> None:
    layer, shape = CASES[name]
    variables, x = problem(layer, shape, jnp.float64)
    expected = outcome(layer, variables, x)
    assert_close(outcome(fast(layer, platform), variables, x), expected, 1e-10)


@pytest.mark.parametrize("groups", [1, 2])
def test_many_large_patches_are_summed_part_by_part(groups: int, float64: None) -> None:
    geometry = convolution.Geometry((1, 2), ((1, 0), (2, 1)), (1, 1), groups)
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 6, 5, 4)), rng.standard_normal((3, 3, 4 // groups, 6))
    found = convolution.patches(jnp.asarray(x), jnp.asarray(kernel), geometry, 1 << 12)
    assert_close(found, convolution.xla(x, kernel, geometry), 1e-12)


IN_FLOAT32 = [  # Those that a CPU computes otherwise than in float64.
    *("3x3 odd", "3x3 padded", "3x3 narrow", "3x3 wide valid", "3x3 stride 2 odd", "3x3 dilated"),
    *("3x3 wider stride", "5x5", "2x2 patches", "1-d", "3-d", "transposed"),
    *("cnn batch", "cnn silu", "chain relu, tiled"),
]


@pytest.mark.optimised
@pytest.mark.parametrize("name", IN_FLOAT32)
def test_in_float32_the_fast_body_is_the_plain_one(name: str) -> None:
    """Tolerance: 1e-4 of each array's largest element. Convolutions take other forms here."""
    layer, shape = CASES[name]
    variables, x = problem(layer, shape, jnp.float32)
    assert_close(outcome(fast(layer, "cpu"), variables, x), outcome(layer, variables, x), 1e-4)


TWICE = [(p, name) for p in ("cpu", "gpu") for name in ("3x3 padded", "3x3 stride 2", "cnn batch")]


@pytest.mark.parametrize(("platform", "name"), TWICE)
def test_a_product_with_the_hessian_is_the_plain_models(
    platform: str, name: str, float64: None
) -> None:
    layer, shape = CASES[name]
    variables, x = problem(layer, shape, jnp.float64)

    def product(model: Any) -> Any:
        def slope(params: Any) -> jax.Array:
            gradients, _ = outcome(model, {**variables, "params": params}, x, train=False)
            return sum(
                jnp.vdot(g, p)
                for g, p in zip(*map(jax.tree.leaves, (gradients[0], params)), strict=True)
            )

        return jax.jit(jax.grad(slope))(variables["params"])

    assert_close(product(fast(layer, platform)), product(layer), 1e-10)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((2, 1), (0, 3))])
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2)])
@pytest.mark.parametrize("features", [4, 33])
def test_in_float64_a_convolution_and_its_gradients_on_a_cpu_are_xlas(
    stride: int, padding: Any, dilation: Any, features: int, float64: None
) -> None:
    """33 channels are not computed in pairs of neighbours. Six images are two chunks."""
    geometry = convolution.Geometry((stride, stride), padding, dilation)
    shapes = (6, 9, 8, 3), (3, 2, 3, features)
    x, kernel = map(np.random.default_rng(0).standard_normal, shapes)

    def quick(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.by_runs(x, kernel, "cpu", geometry)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.xla(x, kernel, geometry)

    found, expected = (
        jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1)))(x, kernel)
        for f in (quick, plain)
    )
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize(
    "name", ["cnn batch", "cnn none", "flax batch norm", "depthwise", "mean 3x3"]
)
def test_evaluation_is_the_plain_models(name: str) -> None:
    layer, shape = CASES[name]
    variables, x = problem(layer, shape, jnp.float32)
    expected = outcome(layer, variables, x, train=False)
    assert_close(outcome(fast(layer, "cpu"), variables, x, train=False), expected, 1e-4)


MAPPED = [
    *[("cpu", name) for name in ("3x3 stride 2", "1x1 stride 2", "5x5", "grouped", "cnn none")],
    *[("gpu", name) for name in ("3x3", "depthwise", "cnn batch")],
]


@pytest.mark.parametrize(("platform", "name"), MAPPED)
def test_mapped_runs_are_the_runs_and_have_no_convolution(platform: str, name: str) -> None:
    """Under vmap a convolution with a kernel a run would be a grouped one."""
    layer, shape = CASES[name]
    runs = [problem(layer, shape, jnp.float32) for _ in range(2)]
    runs[1] = jax.tree.map(lambda leaf: leaf * np.float32(1.1), runs[1])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    traced = jax.jit(jax.vmap(partial(outcome, fast(layer, platform)))).trace(*stacked)
    assert not operations(traced.jaxpr.jaxpr, ["conv_general_dilated"])
    found = traced.lower().compile()(*stacked)
    for i, (variables, x) in enumerate(runs):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        assert_close(one, outcome(layer, variables, x), 1e-4)


def test_many_batches_of_one_network_are_one_large_batch() -> None:
    layer, shape = CASES["3x3"]
    variables, x = problem(layer, shape, jnp.float32)
    images = np.stack([x, 2 * x])
    mapped = jax.vmap(lambda x: fast(layer, "gpu").apply(variables, x, train=False))
    text = jax.jit(mapped).lower(images).as_text()
    assert "stablehlo.convolution" in text
    assert "feature_group_count = 1" in text
    expected = [layer.apply(variables, one, train=False) for one in images]
    np.testing.assert_allclose(mapped(images), jnp.stack(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["3x3", "3x3 wide", "depthwise", "max 3x3 stride 2", "batch norm"])
def test_bfloat16_stays(name: str) -> None:
    layer, shape = CASES[name]
    variables, x = problem(layer, shape, jnp.float32)
    x = jnp.asarray(x, jnp.bfloat16)
    layer = Call(nn.Conv(5, (3, 3), dtype=jnp.bfloat16)) if name == "3x3" else layer
    y = fast(layer, "cpu").apply(variables, x, train=False)
    expected = layer.apply(variables, x, train=False)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y.astype(float), expected.astype(float), rtol=0.05, atol=0.05)


def test_it_is_the_model_in_all_but_speed() -> None:
    model = CNN(num_classes=7)
    one = fast(model, "cpu")
    assert one == fast(model, "cpu")
    assert hash(one) == hash(fast(model, "cpu"))
    assert one != fast(model, "gpu")
    assert (one.num_classes, one.HEAD) == (7, "dense2")
    x = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: one.init(jax.random.key(0), x, train=False))
    assert shapes == jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))


def test_an_operation_keeps_the_name_of_its_layer() -> None:
    layer, shape = CASES["cnn batch"]
    variables, x = problem(layer, shape, jnp.float32)
    text = jax.jit(lambda x: fast(layer, "cpu").apply(variables, x, train=False)).lower(x)
    named = text.compile().as_text()
    assert "/CNN.block/conv1/" in named
    assert "CNN/CNN/" not in named


class Closed(nn.Module):
    """A convolution with a derivative of its own, which no rule enters."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.normal(), (3, 3, 3, 10))

        @jax.custom_vjp
        def layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return convolution.xla(x, kernel, convolution.Geometry((1, 1), ((0, 0),) * 2, (1, 1)))

        layer.defvjp(lambda x, k: (layer(x, k), None), lambda _, g: (None, None))
        return nn.avg_pool(layer(x, kernel), (6, 6)).reshape(len(x), -1)


SLOW = {
    "without a rule": (fast(Closed(), "cpu"), ["conv_general_dilated in the model"]),
    "on a GPU": (fast(Closed(), "gpu"), []),
    "fast": (fast(small("batch"), "cpu"), []),
    "plain": (
        CNN(widths=(4,), hidden=8),
        ["conv_general_dilated in conv1", "reduce_window_max in the model"],
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_layers_that_are_slow_in_a_loop_are_named(name: str) -> None:
    model, expected = SLOW[name]
    experiment = Experiment(model=model, batch_size=2)
    state = jax.eval_shape(lambda: init_state(experiment, jax.random.key(0), (8, 8, 3)))
    assert slow_layers(experiment, state, (8, 8, 3)) == expected
