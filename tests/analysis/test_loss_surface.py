"""The loss around a point: on a quadratic all measurements equal the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cifar_jax.analysis.loss_surface import (
    along_gradient,
    along_plane,
    hessian_product,
    largest_eigenvalues,
    random_direction,
)

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(14, 14))
MATRIX = MATRIX @ MATRIX.T - 3 * np.eye(14)  # with positive and negative eigenvalues
LINEAR = RNG.normal(size=14)
POINT = {"a": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), "b": jnp.ones(2)}
AT = np.asarray(ravel_pytree(POINT)[0], np.float64)


def quadratic(params: dict[str, jax.Array]) -> jax.Array:
    x = ravel_pytree(params)[0]
    return 0.5 * x @ jnp.asarray(MATRIX, jnp.float32) @ x + jnp.asarray(LINEAR, jnp.float32) @ x


def value(x: np.ndarray) -> float:
    return float(0.5 * x @ MATRIX @ x + LINEAR @ x)


def test_along_the_gradient_of_a_quadratic() -> None:
    """Within float32's rounding, 1e-4 relative."""
    steps = np.geomspace(0.005, 0.04, 7)
    found = jax.jit(lambda p, s: along_gradient(quadratic, p, s))(POINT, jnp.asarray(steps))
    g = MATRIX @ AT + LINEAR
    assert found.loss == pytest.approx(value(AT), rel=1e-4)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(g), rel=1e-4)
    np.testing.assert_allclose(found.losses, [value(AT - s * g) for s in steps], rtol=1e-4)
    np.testing.assert_allclose(found.changes, steps * np.linalg.norm(MATRIX @ g), rtol=1e-4)
    beta = np.linalg.norm(MATRIX @ g) / np.linalg.norm(g)
    assert found.smoothness(jnp.asarray(steps)) == pytest.approx(beta, rel=1e-4)


def test_a_plane_through_a_quadratic() -> None:
    """Within float32's rounding, 1e-4 relative."""
    first, second = (
        jax.tree.map(lambda x, i=i: jnp.asarray(RNG.normal(size=x.shape), jnp.float32) * i, POINT)
        for i in (1, 2)
    )
    at = np.array([(0.0, 0.0), (1.0, 0.0), (0.5, -2.0)])
    found = along_plane(quadratic, POINT, (first, second), jnp.asarray(at))
    u, v = (np.asarray(ravel_pytree(d)[0], np.float64) for d in (first, second))
    wanted = [value(AT + a * u + b * v) for a, b in at]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_directions_have_the_norms_of_the_filters_and_leave_biases() -> None:
    params = {
        "kernel": jnp.asarray(RNG.normal(size=(3, 3, 2, 5)), jnp.float32),
        "dense": jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32),
        "bias": jnp.ones(5),
    }
    found, other = (random_direction(jax.random.key(i), params) for i in (0, 1))
    for name, axes in (("kernel", (0, 1, 2)), ("dense", 0)):
        norms = [np.sqrt(np.sum(np.square(tree[name]), axes)) for tree in (found, params)]
        np.testing.assert_allclose(*norms, rtol=1e-5)
        assert np.abs(found[name] - other[name]).max() > 0.1
    assert not found["bias"].any()


def test_the_largest_eigenvalues_of_a_quadratic() -> None:
    """Within the stated tolerance, 1e-3 relative."""
    product = jax.jit(lambda v: hessian_product(quadratic, POINT, v))
    found = largest_eigenvalues(product, POINT, 5)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(MATRIX)[:-6:-1], rtol=1e-3)


def test_the_hessian_of_a_small_network_is_jaxs() -> None:
    """Against jax.hessian, forward over reverse, as a dense matrix: 1e-3 relative."""
    x = jnp.asarray(RNG.normal(size=(20, 3)), jnp.float32)
    params = {"w": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), "v": jnp.ones(4)}

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - x[:, 0]) ** 2)

    flat, unravel = ravel_pytree(params)
    dense = jax.hessian(lambda vector: loss(unravel(vector)))(flat)
    found = largest_eigenvalues(lambda v: hessian_product(loss, params, v), params, 3)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(dense)[:-4:-1], rtol=1e-3)
