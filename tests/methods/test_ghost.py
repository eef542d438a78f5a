"""Ghost Batch Normalization against PyTorch's BatchNorm of each part of the batch."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from x64 import enable_x64

from cifar_jax.core.norms import BatchNorm
from cifar_jax.methods.ghost import GhostBatchNorm, equal_parts

CHANNELS = 5
RNG = np.random.default_rng(0)
PARAMS = {"scale": np.linspace(0.5, 2, CHANNELS), "bias": np.linspace(-1, 1, CHANNELS)}
STATS = {"mean": np.linspace(-3, 3, CHANNELS), "var": np.linspace(0.1, 4, CHANNELS)}
VARIABLES = jax.tree.map(np.float32, {"params": PARAMS, "batch_stats": STATS})


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def applied(layer: nn.Module, x: jax.Array, *, train: bool) -> Any:
    return layer.apply(VARIABLES, x, train=train, mutable=["batch_stats"])


def of_torch(x: np.ndarray, g: np.ndarray, parts: int) -> dict[str, np.ndarray]:
    """Output, gradients and running statistics of a layer that is called with each part in turn."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    layer = torch.nn.BatchNorm1d(CHANNELS, momentum=0.3).double()
    named = zip(
        (layer.weight, layer.bias, layer.running_mean, layer.running_var),
        (*PARAMS.values(), *STATS.values()),
        strict=True,
    )
    with torch.no_grad():
        for tensor, values in named:
            tensor.copy_(torch.from_numpy(values))
    images = torch.from_numpy(x).requires_grad_()
    # Positions are rows, as images are: a channel's statistics are of all of them.
    y = torch.cat([layer(part.reshape(-1, CHANNELS)) for part in images.chunk(parts)])
    y.backward(torch.from_numpy(g).reshape(-1, CHANNELS))
    return {
        "y": y.detach().numpy().reshape(x.shape),
        "x": images.grad.numpy(),
        "scale": layer.weight.grad.numpy(),
        "bias": layer.bias.grad.numpy(),
        "mean": layer.running_mean.numpy(),
        "var": layer.running_var.numpy(),
    }


@pytest.mark.parametrize("parts", [1, 3, 6])
@pytest.mark.parametrize("shape", [(12, 4, 2, CHANNELS), (12, CHANNELS)])
def test_each_part_is_pytorchs_batch_norm(shape: tuple[int, ...], parts: int) -> None:
    """Values, gradients and running statistics, in float64."""
    x, g = RNG.normal(1, 2, shape), RNG.normal(size=shape)
    layer = GhostBatchNorm(parts, momentum=0.7)

    def apply(params: Any, x: jax.Array) -> Any:
        known = {"params": params, "batch_stats": STATS}
        return layer.apply(known, x, train=True, mutable=["batch_stats"])

    @jax.jit
    def both(params: Any, x: jax.Array, g: jax.Array) -> Any:
        y, pull, updated = jax.vjp(apply, params, x, has_aux=True)
        return y, pull(g), updated

    with enable_x64(True):
        y, (d_params, d_x), updated = both(PARAMS, x, g)
    found = {"y": y, "x": d_x, **d_params, **updated["batch_stats"]}
    expected = of_torch(x, g, parts)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-11, atol=1e-11, err_msg=name)


def test_evaluation_is_that_of_batch_norm() -> None:
    x = RNG.normal(size=(3, 4, 2, CHANNELS)).astype(np.float32)
    found, kept = applied(GhostBatchNorm(2), x, train=False)
    expected, _ = applied(BatchNorm(), x, train=False)
    np.testing.assert_array_equal(found, expected)
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"], VARIABLES["batch_stats"])


def test_one_part_is_batch_norm_with_the_same_variables() -> None:
    x = RNG.normal(size=(4, 3, 3, CHANNELS)).astype(np.float32)
    both = [applied(layer, x, train=True) for layer in (GhostBatchNorm(1), BatchNorm())]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *both)


@pytest.mark.parametrize(
    ("n", "most", "expected"),
    [(128, 8, 8), (72, 16, 12), (72, 8, 8), (8, 8, 4), (7, 4, 1), (1, 8, 1)],
)
def test_a_batch_is_divided_into_at_most_so_many_parts_of_two_images_or_more(
    n: int, most: int, expected: int
) -> None:
    assert equal_parts(n, most) == expected
