"""Pooling and Batch Normalization compared with their definition in NumPy, float64."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from x64 import enable_x64

from cifar_jax.core.model import CNN
from cifar_jax.kernels import batch_norm, fast, pooling, relu

pytestmark = pytest.mark.optimised


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with enable_x64(True):
        yield


def draw(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def largest(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Maxima of all windows that fit into (N, H, W, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return windows[:, ::stride, ::stride].max((-2, -1))


def pool_gradient(x: np.ndarray, g: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Each window's gradient goes to its first largest element (np.argmax takes the first)."""
    out = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*g.shape):
        rows, columns = (slice(stride * at, stride * at + size) for at in (i, j))
        di, dj = divmod(int(x[n, rows, columns, c].argmax()), size)
        out[n, stride * i + di, stride * j + dj, c] += g[n, i, j, c]
    return out


@partial(jax.jit, static_argnums=0)
def value_and_pullback(function: Callable[..., Any], g: Any, *args: Any) -> Any:
    """Value of a function, and the gradients of its inner product with g."""
    y, pull = jax.vjp(function, *args)
    return y, pull(g)


@pytest.mark.parametrize("integers", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (2, 1)])
def test_max_pool(size: int, stride: int, integers: bool) -> None:
    (x,) = draw(4, (2, 8, 7, 3))
    x = np.round(x) if integers else x
    expected = largest(x, size, stride)
    (g,) = draw(5, expected.shape)
    pool = partial(pooling.max_pool, axes=(1, 2), window=(size,) * 2, strides=(stride,) * 2)
    y, (gradient,) = value_and_pullback(pool, g, x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(gradient, pool_gradient(x, g, size, stride), atol=1e-14)


@pytest.mark.parametrize("integers", [False, True], ids=["distinct", "ties"])
def test_relu_max_pool_is_relu_then_pool(integers: bool) -> None:
    x, g = draw(5, (3, 8, 4, 5), (3, 4, 2, 5))
    x = np.round(x - 0.7) if integers else x - 0.7
    y, (gradient,) = value_and_pullback(pooling.relu_max_pool_2x2, g, x)
    positive = np.maximum(x, 0)
    np.testing.assert_array_equal(y, largest(positive, 2, 2))
    np.testing.assert_array_equal(gradient, pool_gradient(positive, g, 2, 2) * (x > 0))


def test_the_gradient_of_a_bias_before_relu_and_pool_is_the_sum_of_passed_gradients() -> None:
    x, bias, g = draw(6, (3, 8, 4, 5), (5,), (3, 4, 2, 5))

    def pool(x: jax.Array, bias: jax.Array) -> jax.Array:
        windows = pooling.split_windows(x)
        return pooling.bias_relu_max_pool_windows(windows, bias, pooling.NHWC_AXES)

    y, gradients = value_and_pullback(pool, g, x, bias)
    positive = np.maximum(x + bias, 0)
    expected = pool_gradient(positive, g, 2, 2) * (positive > 0)
    np.testing.assert_allclose(y, largest(positive, 2, 2), rtol=1e-14)
    np.testing.assert_array_equal(gradients[0], expected)
    np.testing.assert_allclose(gradients[1], expected.sum((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_pools_keep_the_dtype(dtype: Any) -> None:
    x = jnp.ones((1, 2, 2, 1), dtype)
    for pool in (pooling.max_pool_2x2, pooling.relu_max_pool_2x2):
        y, (gradient,) = value_and_pullback(pool, jnp.ones((1, 1, 1, 1), dtype), x)
        assert y.dtype == dtype
        assert gradient.dtype == dtype
        assert gradient.ravel().tolist() == [1, 0, 0, 0]


def test_relu_and_its_gradient_are_jaxs_at_zero_and_where_x_is_not_finite() -> None:
    x = np.array([-np.inf, -1, -0.0, 0, 2, np.inf, np.nan])
    g = np.arange(1.0, 8)
    y, (gradient,) = value_and_pullback(relu.relu, g, x)
    expected, (wanted,) = value_and_pullback(jax.nn.relu, g, x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient, wanted)


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (2, 4, 5, 1), (4, 4, 1)])
def test_windows_name_the_shape_they_refuse(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="even H and W, got") as refused:
        pooling.split_windows(jnp.zeros(shape))
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize(
    ("platform", "shape"),
    # 32 rows are summed in parts.
    [("cpu", (2, 4, 4, 3)), ("cpu", (6, 5)), ("gpu", (2, 4, 4, 3)), ("gpu", (6, 5))],
)
def test_batch_norm_value_and_all_gradients(platform: str, shape: tuple[int, ...]) -> None:
    x, scale, bias = draw(6, shape, shape[-1:], shape[-1:])
    axes = tuple(range(len(shape) - 1))
    y, mean, var = batch_norm.batch_norm(x, scale, bias, 1e-3, platform)
    wanted = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-3) * scale + bias
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(var, x.var(axes), rtol=1e-12)
    norm = jax.jit(partial(batch_norm.batch_norm, eps=1e-3, platform=platform))
    check_grads(norm, (x, scale, bias), 1, modes=["rev"])


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_fused_batch_norm_is_batch_norm_then_relu_then_pool(platform: str) -> None:
    """Values, statistics and all gradients; a scale may be negative or zero."""
    x, bias, g = draw(9, (3, 6, 4, 4), (4,), (3, 3, 2, 4))
    scale, g_mean, g_var = np.array([1.5, -0.7, 0.0, 2.0]), np.arange(4.0), np.ones(4)
    bias[2] = 0.3

    def alone(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        y, mean, var = batch_norm.batch_norm(x, scale, bias, 1e-3, platform)
        return pooling.relu_max_pool_2x2(y), mean, var

    fused = partial(batch_norm.batch_norm_relu_max_pool_2x2, eps=1e-3, platform=platform)
    cotangents = tuple(map(jnp.asarray, (g, g_mean, g_var)))
    found, gradients = value_and_pullback(fused, cotangents, x, scale, bias)
    expected, wanted = value_and_pullback(alone, cotangents, x, scale, bias)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    for a, b in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_batch_norm_keeps_its_digits_far_from_zero(platform: str) -> None:
    """Mean square minus squared mean would lose all of float32's digits here."""
    x = (draw(7, (64, 4))[0] + 4096).astype(np.float32)
    one, zero = jnp.ones(4, jnp.float32), jnp.zeros(4, jnp.float32)
    _, mean, var = batch_norm.batch_norm(jnp.asarray(x), one, zero, 1e-5, platform)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_no_operation_is_slow_on_the_cpu(norm: str) -> None:
    """In a loop XLA's own gradients are two orders of magnitude slower there."""
    model = CNN(norm=norm, widths=(4, 6), hidden=8)
    x = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))

    def loss(params: Any, variables: Any) -> jax.Array:
        y, _ = fast(model, "cpu").apply(
            {**variables, "params": params},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return y.sum()

    text = jax.jit(jax.grad(loss)).lower(variables["params"], variables).as_text()
    assert "dot_general" in text
    assert "stablehlo.convolution" not in text
    assert "select_and_scatter" not in text
