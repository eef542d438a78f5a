"""Forms of a convolution on an accelerator, and the table that chooses them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr
from x64 import enable_x64

from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, init_state, train_steps
from cifar_jax.kernels import convolution, fast, forms
from cifar_jax.runner.programs import stack_runs

ON_A_CPU = [form for form in forms.FORMS if form != "split"]  # A CPU has no TF32.
TIMES = {
    "1": {"xla": 1.0, "blocks": 0.9},
    "10": {"blocks": 4.0, "patches": 5.0},
    "40": {"patches": 17.0, "blocks": 18.0},
}


@pytest.fixture
def float64() -> Iterator[None]:
    with enable_x64(True):
        yield


@pytest.fixture
def force() -> Iterator[Any]:
    """Return a function that forces a form."""
    token = forms.forced.set(None)
    yield forms.forced.set
    forms.forced.reset(token)


@pytest.mark.parametrize("form", ON_A_CPU)
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("channels", [3, 16])
def test_every_form_is_xlas_convolution(
    form: str, runs: int, channels: int, force: Any, float64: None
) -> None:
    """Value and gradients in float64, to 1e-10."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((runs, 2, 6, 5, channels))
    kernel = rng.standard_normal((runs, 3, 3, channels, 4))
    geometry = convolution.Geometry((1, 1), ((1, 1), (1, 1)), (1, 1))

    def quick(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(convolution.conv("gpu", x, kernel, geometry)))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(convolution.xla(x, kernel, geometry)))

    def of(function: Any) -> Any:
        both = jax.value_and_grad(function, (0, 1))
        return jax.jit(both)(x[0], kernel[0]) if runs == 1 else jax.jit(jax.vmap(both))(x, kernel)

    force(form)
    for a, b in zip(jax.tree.leaves(of(quick)), jax.tree.leaves(of(plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield every equation, also inside loops and calls."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)
        ):
            if isinstance(value, ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from equations(value)


@pytest.mark.parametrize("form", ["blocks", "patches", "winograd"])
def test_runs_that_train_together_keep_full_float32(form: str, force: Any) -> None:
    """`vmap` rewrites a loop's body outside the context that sets the precision of products."""
    model = fast(CNN(norm="batch", widths=(4, 16), hidden=6), "gpu")
    experiment = Experiment(model=model, batch_size=2)
    images, labels = jnp.zeros((4, 8, 8, 3), jnp.uint8), jnp.zeros(4, jnp.int32)
    data = Data(images, labels, images, labels)

    def first() -> tuple[Hyper, Any]:
        state = init_state(experiment, jax.random.key(0), (8, 8, 3))
        return stack_runs([Hyper()] * 2), stack_runs([state] * 2)

    def steps(hyper: Hyper, state: Any) -> Any:
        return train_steps(experiment, hyper, data, state, 0, 2)

    force(form)
    traced = jax.make_jaxpr(jax.vmap(steps))(*jax.eval_shape(first))
    found = [e for e in equations(traced.jaxpr) if e.primitive.name == "dot_general"]
    assert len(found) >= 8
    assert {e.params["precision"] for e in found} == {(lax.Precision.HIGHEST,) * 2}


@pytest.mark.parametrize(
    ("runs", "form"),
    [(1, "blocks"), (2, "blocks"), (12, "blocks"), (40, "patches"), (99, "patches")],
)
def test_the_fastest_form_is_of_the_nearest_smaller_measurement(runs: int, form: str) -> None:
    assert forms.fastest(TIMES, runs) == form


def test_one_run_says_nothing_of_several() -> None:
    """XLA's convolution of several runs is a grouped one, which is slow."""
    assert forms.fastest({"1": {"xla": 1.0, "blocks": 2.0}}, 10) == "blocks"
    assert forms.fastest({"10": {"patches": 1.0}}, 1) == "xla"


def test_runs_train_together_as_many_as_were_fastest() -> None:
    assert forms.group_size(TIMES) == 10
    assert forms.group_size({**TIMES, "40": {"blocks": 15.0}}) is None  # Even more may be faster.
    assert forms.group_size({}) is None


@pytest.mark.parametrize(
    ("dtype", "precision", "name"),
    [
        (jnp.bfloat16, "highest", "bfloat16"),
        (jnp.float32, "highest", "float32"),
        (jnp.float32, (lax.Precision.HIGHEST,) * 2, "float32"),
        (jnp.float32, "tensorfloat32", "tf32"),
        (jnp.float32, None, "tf32"),
    ],
)
def test_the_name_of_a_precision(dtype: Any, precision: Any, name: str) -> None:
    assert forms.precision_name(dtype, precision) == name


def test_every_measured_form_exists() -> None:
    for precisions in map(forms.measured, ["NVIDIA H100 80GB HBM3", "no such card"]):
        for times in precisions.values():
            assert {form for found in times.values() for form in found} <= set(forms.FORMS)
