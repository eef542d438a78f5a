"""Convolution, pooling and normalisation against sums written out in NumPy, float64."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cifar_jax.models import convolution, layers

pytestmark = pytest.mark.optimised

FORMULATIONS = sorted(convolution.FORMULATIONS)
SHAPES = [(2, 8, 8, 3, 5), (1, 4, 12, 16, 20), (2, 9, 5, 17, 2), (1, 1, 1, 2, 3)]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        yield


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def numpy_conv3x3(x, kernel):
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i, j in itertools.product(range(3), range(3))
    )


def numpy_conv3x3_gradients(x, kernel, g):
    """The definition, shift by shift: y[p] = sum_ij x[p + ij - 1] kernel[ij]."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for i, j in itertools.product(range(3), range(3)):
        d_padded[:, i : i + height, j : j + width] += g @ kernel[i, j].T
        seen = padded[:, i : i + height, j : j + width]
        d_kernel[i, j] = np.einsum("nhwc,nhwk->ck", seen, g)
    return d_padded[:, 1:-1, 1:-1], d_kernel


def numpy_pool_gradient(x, g):
    """Each window's gradient goes to its first largest element (np.argmax takes the first)."""
    out = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*g.shape):
        window = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        di, dj = divmod(int(window.argmax()), 2)
        out[n, 2 * i + di, 2 * j + dj, c] = g[n, i, j, c]
    return out


@partial(jax.jit, static_argnums=0)
def value_and_pullback(function, g, *args):
    """function(*args) and the gradients of its inner product with g."""
    y, pull = jax.vjp(function, *args)
    return y, pull(g)


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 5e-6)])
def test_conv_forward_and_gradients(formulation, shape, dtype, tolerance):
    n, h, w, c, k = shape
    x, kernel, g = draw(0, (n, h, w, c), (3, 3, c, k), (n, h, w, k))
    conv = partial(convolution.conv3x3, formulation=formulation)
    y, gradients = value_and_pullback(conv, *(a.astype(dtype) for a in (g, x, kernel)))
    assert y.dtype == dtype
    assert relative(y, numpy_conv3x3(x, kernel)) < tolerance
    expected = numpy_conv3x3_gradients(x, kernel, g)
    for actual, wanted in zip(gradients, expected, strict=True):
        assert relative(actual, wanted) < tolerance


def test_conv_adds_the_bias_and_sums_its_gradient():
    x, kernel, bias = draw(1, (2, 4, 4, 3), (3, 3, 3, 5), (5,))
    y = jax.jit(layers.conv3x3)(x, kernel, bias)
    np.testing.assert_allclose(y, numpy_conv3x3(x, kernel) + bias, rtol=1e-12, atol=1e-12)
    gradient = jax.jit(jax.grad(lambda b: layers.conv3x3(x, kernel, b).sum()))(bias)
    np.testing.assert_allclose(gradient, np.full(5, 2 * 4 * 4), rtol=1e-12)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_conv_maps_over_seeds_with_their_own_kernels(formulation):
    x, kernels = draw(2, (3, 2, 4, 4, 5), (3, 3, 3, 5, 6))
    conv = partial(convolution.conv3x3, formulation=formulation)

    def loss(kernel, x):
        return jnp.sum(conv(x, kernel) ** 2)

    mapped = jax.jit(jax.vmap(jax.grad(loss)))(kernels, x)
    for kernel, images, actual in zip(kernels, x, mapped, strict=True):
        wanted = numpy_conv3x3_gradients(images, kernel, 2 * numpy_conv3x3(images, kernel))[1]
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("platform", ["cuda", "gpu", "tpu", "metal", "rocm"])
@pytest.mark.parametrize("channels", [3, 64])
def test_accelerators_use_their_own_convolution_but_for_stacked_runs(platform, channels):
    assert convolution.choose(platform, channels, stacked=False) == "xla"
    assert convolution.choose(platform, channels, stacked=True) != "xla"


def test_runs_are_stacked_inside_their_axis_alone():
    seen = []

    def run(x):
        seen.append(convolution.is_stacked())
        return x

    jax.vmap(run)(jnp.ones(2))
    jax.vmap(jax.jit(run), axis_name=convolution.RUNS)(jnp.ones(2))
    jax.jit(run)(jnp.ones(2))
    assert seen == [False, True, False]


def test_no_convolution_is_left_for_the_cpu_and_no_gradient_of_images_is_computed():
    """XLA's convolution gradients are two orders of magnitude slower inside a loop on a CPU."""
    x, kernel = draw(3, (2, 4, 4, 3), (3, 3, 3, 8))
    gradient = jax.jit(jax.grad(lambda k: layers.relu_max_pool_2x2(layers.conv3x3(x, k)).sum()))
    text = gradient.lower(kernel).as_text()
    assert "dot_general" in text
    assert "stablehlo.convolution" not in text
    assert "select_and_scatter" not in text


@pytest.mark.parametrize("integers", [False, True], ids=["distinct", "ties"])
def test_max_pool(integers):
    x, g = draw(4, (2, 6, 4, 3), (2, 3, 2, 3))
    x = np.round(x) if integers else x
    y, gradients = value_and_pullback(layers.max_pool_2x2, g, x)
    np.testing.assert_array_equal(y, x.reshape(2, 3, 2, 2, 2, 3).max((2, 4)))
    np.testing.assert_array_equal(gradients[0], numpy_pool_gradient(x, g))


@pytest.mark.parametrize("integers", [False, True], ids=["distinct", "ties"])
def test_relu_max_pool_is_relu_then_pool(integers):
    x, g = draw(5, (3, 8, 4, 5), (3, 4, 2, 5))
    x = np.round(x - 0.7) if integers else x - 0.7
    y, gradients = value_and_pullback(layers.relu_max_pool_2x2, g, x)
    positive = np.maximum(x, 0)
    np.testing.assert_array_equal(y, positive.reshape(3, 4, 2, 2, 2, 5).max((2, 4)))
    np.testing.assert_array_equal(gradients[0], numpy_pool_gradient(positive, g) * (x > 0))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_pools_keep_the_dtype(dtype):
    x = jnp.ones((1, 2, 2, 1), dtype)
    for pool in (layers.max_pool_2x2, layers.relu_max_pool_2x2):
        y, (gradient,) = value_and_pullback(pool, jnp.ones((1, 1, 1, 1), dtype), x)
        assert y.dtype == dtype
        assert gradient.dtype == dtype
        assert gradient.ravel().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (2, 4, 5, 1), (4, 4, 1)])
@pytest.mark.parametrize("pool", [layers.max_pool_2x2, layers.relu_max_pool_2x2])
def test_pools_name_the_shape_they_refuse(pool, shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        pool(jnp.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (6, 5)])
def test_batch_norm_value_and_all_gradients(shape):
    x, scale, bias = draw(6, shape, shape[-1:], shape[-1:])
    axes = tuple(range(len(shape) - 1))
    y, mean, var = layers.batch_norm(x, scale, bias, 1e-3)
    wanted = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-3) * scale + bias
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(var, x.var(axes), rtol=1e-12)
    check_grads(jax.jit(partial(layers.batch_norm, eps=1e-3)), (x, scale, bias), 1, modes=["rev"])


def test_fused_batch_norm_is_batch_norm_then_relu_then_pool():
    """Values, statistics and all gradients; a scale may be negative or zero."""
    x, bias, g = draw(9, (3, 6, 4, 4), (4,), (3, 3, 2, 4))
    scale, g_mean, g_var = np.array([1.5, -0.7, 0.0, 2.0]), np.arange(4.0), np.ones(4)
    bias[2] = 0.3

    def apart(x, scale, bias):
        y, mean, var = layers.batch_norm(x, scale, bias, 1e-3)
        return layers.relu_max_pool_2x2(y), mean, var

    fused = partial(layers.batch_norm_relu_max_pool_2x2, eps=1e-3)
    y, pull = jax.vjp(jax.jit(fused), x, scale, bias)
    wanted, pull_apart = jax.vjp(jax.jit(apart), x, scale, bias)
    for actual, expected in zip(y, wanted, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-13)
    cotangents = (jnp.asarray(g), jnp.asarray(g_mean), jnp.asarray(g_var))
    for actual, expected in zip(pull(cotangents), pull_apart(cotangents), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


def test_batch_norm_keeps_its_digits_far_from_zero():
    """Mean square minus squared mean would lose all of float32's digits here."""
    (x,) = draw(7, (64, 4))
    x = (x + 4096).astype(np.float32)
    one, zero = jnp.ones(4, jnp.float32), jnp.zeros(4, jnp.float32)
    _, mean, var = layers.batch_norm(jnp.asarray(x), one, zero, 1e-5)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-4)


def test_layers_compose_under_jit_scan_grad_and_vmap():
    kernels, x = draw(8, (2, 3, 3, 3, 16), (2, 4, 4, 3))
    scale, bias = np.ones(16), np.zeros(16)

    def loss(kernel):
        y, _, _ = layers.batch_norm(layers.conv3x3(x, kernel), scale, bias, 1e-5)
        return jnp.sum(layers.relu_max_pool_2x2(y) ** 2)

    @jax.jit
    def descend(kernel):
        def step(kernel, _):
            return kernel - 0.1 * jax.grad(loss)(kernel), None

        return jax.lax.scan(step, kernel, None, length=3)[0]

    mapped = jax.jit(jax.vmap(descend))(kernels)
    for kernel, actual in zip(kernels, mapped, strict=True):
        np.testing.assert_allclose(actual, descend(kernel), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("shape", [(4, 8, 8, 3, 5), (3, 4, 6, 16, 4)], ids=str)
def test_convolution_in_windows_then_pooling_is_that_of_the_whole_image(formulation, shape):
    """Values and all gradients, in whatever layout the formulation leaves its result."""
    n, h, w, c, k = shape
    x, kernel, bias, g = draw(10, (n, h, w, c), (3, 3, c, k), (k,), (n, h // 2, w // 2, k))

    def pooled(x, kernel, bias):
        windows = layers.conv3x3_windows(x, kernel, formulation=formulation)
        y = layers.bias_relu_max_pool_windows(windows.values, bias, windows.axes)
        return windows.image(y)

    y, gradients = value_and_pullback(pooled, g, x, kernel, bias)
    whole = numpy_conv3x3(x, kernel) + bias
    positive = np.maximum(whole, 0)
    wanted = positive.reshape(n, h // 2, 2, w // 2, 2, k).max((2, 4))
    np.testing.assert_allclose(y, wanted, rtol=1e-11, atol=1e-11)
    d_whole = numpy_pool_gradient(positive, g) * (whole > 0)
    expected = (*numpy_conv3x3_gradients(x, kernel, d_whole), d_whole.sum((0, 1, 2)))
    for actual, wanted in zip(gradients, expected, strict=True):
        assert relative(actual, wanted) < 1e-11
    windows = layers.conv3x3_windows(x, kernel, formulation=formulation)
    np.testing.assert_allclose(windows.whole() + bias, whole, rtol=1e-11, atol=1e-11)
