"""How the loss changes around a network's parameters: along the gradient, in a plane, curvature.

All are functions of a `loss`: parameters, any tree of arrays, to a float ().
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

Loss = Callable[[Any], Array]


class Along(NamedTuple):
    """The loss along its gradient g at parameters p, for S step sizes s: at p - s * g.

    Attributes:
        loss: at p, float ().
        gradient_norm: of g, float ().
        losses: float (S,).
        changes: distance of the gradient at each point from g, float (S,).
    """

    loss: Array
    gradient_norm: Array
    losses: Array
    changes: Array

    def smoothness(self, steps: Array) -> Array:
        """Return the effective beta-smoothness: the largest change of the gradient by distance."""
        return jnp.max(self.changes / (steps * self.gradient_norm))


def _norm(tree: Any) -> Array:
    return jnp.linalg.norm(ravel_pytree(tree)[0])


def along_gradient(loss: Loss, params: Any, steps: Array) -> Along:
    """Measure the loss and its gradient along the gradient, step size by step size.

    Santurkar et al. 2018, arXiv 1805.11604, section 3.1 and figure 4.

    Args:
        loss: of the parameters.
        params: where to begin.
        steps: step sizes, float (S,).
    """
    value, gradient = jax.value_and_grad(loss)(params)

    def at(step: Array) -> tuple[Array, Array]:
        moved = jax.tree.map(lambda p, g: p - step * g, params, gradient)
        there, new = jax.value_and_grad(loss)(moved)
        return there, _norm(jax.tree.map(jnp.subtract, new, gradient))

    # One after the other: each needs the memory of a training step.
    return Along(value, _norm(gradient), *lax.map(at, steps))


def random_direction(key: Array, params: Any) -> Any:
    """Return a filter-normalised random direction, of the structure of `params`.

    Li et al. 2018, arXiv 1712.09913, section 4: normal numbers, scaled so that each filter has the
    norm of the network's filter. A filter is all weights of one output: the last axis of a kernel.
    Parameters with one axis, which are biases and those of normalisation, do not change.
    """
    leaves, structure = jax.tree.flatten(params)

    def direction(key: Array, leaf: Array) -> Array:
        if leaf.ndim < 2:
            return jnp.zeros_like(leaf)
        normal = jax.random.normal(key, leaf.shape, leaf.dtype)
        axes = tuple(range(leaf.ndim - 1))
        norm, wanted = (jnp.sqrt(jnp.sum(x**2, axes, keepdims=True)) for x in (normal, leaf))
        return normal * wanted / norm

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, map(direction, keys, leaves))


def along_plane(loss: Loss, params: Any, directions: tuple[Any, Any], at: Array) -> Array:
    """Return the loss at points of the plane p + a * first + b * second, float (P,).

    Args:
        loss: of the parameters.
        params: p, the origin.
        directions: first and second, of the same structure.
        at: the coordinates (a, b) of the points, float (P, 2).
    """

    def value(point: Array) -> Array:
        first, second = directions
        return loss(
            jax.tree.map(lambda p, u, v: p + point[0] * u + point[1] * v, params, first, second)
        )

    return lax.map(value, at)


def hessian_product(loss: Loss, params: Any, vector: Any) -> Any:
    """Return the product of the loss's Hessian with a vector of the structure of `params`.

    Reverse over reverse: the models of `kernels` have no forward derivative.
    """

    def slope(params: Any) -> Array:
        products = jax.tree.map(jnp.vdot, jax.grad(loss)(params), vector)
        return jax.tree.reduce(jnp.add, products)

    return jax.grad(slope)(params)


def largest_eigenvalues(
    product: Callable[[Any], Any], params: Any, count: int, tolerance: float = 1e-3
) -> np.ndarray:
    """Return the largest eigenvalues of a symmetric matrix, largest first, float64 (count,).

    By ARPACK: Lanczos iterations with full orthogonalisation and implicit restarts (Lehoucq,
    Sorensen & Yang, ARPACK Users' Guide, 1998). The first vector is fixed.

    Args:
        product: from a vector v, of the structure of `params`, to the matrix times v.
        params: an example.
        count: number of eigenvalues, less than the number of parameters.
        tolerance: relative error of the eigenvalues.
    """
    example, unravel = ravel_pytree(params)
    size = len(example)

    def matvec(vector: np.ndarray) -> np.ndarray:
        flat = jnp.asarray(vector.reshape(size), example.dtype)
        return np.asarray(ravel_pytree(product(unravel(flat)))[0], np.float64)

    operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
    first = np.random.default_rng(0).normal(size=size)
    values = eigsh(operator, count, which="LA", v0=first, tol=tolerance, return_eigenvectors=False)
    return np.sort(values)[::-1]
