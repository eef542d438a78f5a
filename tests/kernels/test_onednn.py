"""oneDNN's convolution inside XLA, compared with XLA's own."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from x64 import enable_x64

from cifar_jax.kernels import fast, onednn
from cifar_jax.kernels.direct import Geometry, kernel_gradient, training_conv, xla

pytestmark = pytest.mark.skipif(
    not onednn.available(), reason="not Linux on x86-64, or a version of jaxlib not in KNOWN"
)


class Conv(nn.Module):
    """One layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(64, (3, 3), param_dtype=x.dtype)(x)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 1), ((1, 1), (0, 1)), (1, 1)),
        Geometry((2, 1), ((1, 0), (2, 0)), (1, 1)),
        Geometry((1, 1), ((0, 0), (4, 3)), (2, 3)),
    ],
    ids=["padding", "strides", "dilation"],
)
def test_value(geometry: Geometry) -> None:
    """Relative to the largest value, within 1e-6. Also for several kernels, one after the other."""
    x, kernels = draw(2, 9, 10, 5), draw(2, 3, 2, 5, 7)

    def of_kernels(function: Any) -> np.ndarray:
        one = partial(function, geometry=geometry)
        return np.asarray(jax.jit(jax.vmap(one, (None, 0)))(x, kernels))

    y, expected = of_kernels(training_conv), of_kernels(xla)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6 * abs(expected).max())


@pytest.mark.parametrize("images", [3, 16, 21])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 1), ((1, 1), (1, 1)), (1, 1)),
        Geometry((2, 2), ((0, 1), (1, 0)), (1, 1)),
        Geometry((1, 2), ((2, 0), (3, 1)), (2, 1)),
    ],
    ids=["plain", "strides", "dilation"],
)
def test_gradient_of_the_kernel(geometry: Geometry, images: int) -> None:
    """Of less than a chunk, of one, and of more. Within 2e-6 of the largest value in float64."""
    x, kernel = draw(images, 8, 8, 16), draw(3, 3, 16, 17)
    with enable_x64(True):
        exact = (jnp.asarray(a, jnp.float64) for a in (x, kernel))
        y, gradients = jax.vjp(partial(xla, geometry=geometry), *exact)
        g = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
        expected = np.asarray(gradients(jnp.asarray(g, jnp.float64))[1])
    found = jax.jit(kernel_gradient, static_argnums=3)(g, x, kernel, geometry)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * abs(expected).max())


def test_gram() -> None:
    """Value, gradients and several runs at once. Within 1e-6 of the largest value in float64."""
    x, y, g = draw(3, 4, 50, 6), draw(3, 4, 50, 7), draw(3, 4, 6, 7)

    def results(function: Any, *arrays: Any) -> Any:
        def of_run(x: jax.Array, y: jax.Array, g: jax.Array) -> Any:
            value, gradients = jax.vjp(function, x, y)
            return value, gradients(g)

        return jax.tree.map(np.asarray, jax.jit(jax.vmap(of_run))(*arrays))

    with enable_x64(True):
        exact = (jnp.asarray(a, jnp.float64) for a in (x, y, g))
        expected = results(lambda x, y: jnp.matmul(x.swapaxes(1, 2), y), *exact)
    for a, b in zip(
        jax.tree.leaves(results(onednn.gram, x, y, g)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * abs(b).max())


def calls(model: Any, x: jax.Array, *, trains: bool) -> tuple[int, int]:
    """How often a program calls oneDNN's convolution and product."""
    params = jax.eval_shape(Conv().init, jax.random.key(0), x)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        y: jax.Array = model.apply(params, x)
        return y.sum()

    function = jax.grad(loss, argnums=(0, 1)) if trains else loss
    program = str(jax.make_jaxpr(function)(params, x))
    return program.count("__onednn$convolution"), program.count("__onednn$matmul")


@pytest.mark.parametrize(("channels", "expected"), [(3, (3, 0)), (16, (3, 0)), (64, (0, 1))])
def test_training_in_float32_alone_uses_it(channels: int, expected: tuple[int, int]) -> None:
    """For value and both gradients; of Winograd's products, which 64 channels take, for one.

    Predictions do not use it: XLA cannot store a program with it.
    """
    x = jnp.zeros((2, 8, 8, channels))
    assert calls(fast(Conv(), "cpu"), x, trains=True) == expected
    assert calls(fast(Conv(), "cpu"), x, trains=False) == (0, 0)
    with enable_x64(True):
        assert calls(fast(Conv(), "cpu"), x.astype(jnp.float64), trains=True) == (0, 0)


PROGRAM = """
import jax, jax.numpy as jnp
from cifar_jax.kernels.direct import Geometry, training_conv
x, geometry = jnp.ones((1, 4, 4, 16)), Geometry((1, 1), ((1, 1), (1, 1)), (1, 1))
@jax.jit
def conv(x): return training_conv(x, jnp.ones((3, 3, 16, 16)), geometry)
print(conv(x)[0, 1, 1, 0])
"""


def test_its_program_is_not_cached(tmp_path: Path) -> None:
    """XLA would read foreign memory to store it."""
    options = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_RAISE_PERSISTENT_CACHE_ERRORS": "1",
    }
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=os.environ | options, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == 3 * 3 * 16
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("jit_conv-")]
