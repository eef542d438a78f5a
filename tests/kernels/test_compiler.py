"""The options that training is compiled with."""

import jax
import jax.numpy as jnp
import pytest

from cifar_jax.kernels import compiler

pytestmark = pytest.mark.optimised


@pytest.mark.parametrize(
    "unknown", [{"xla_no_such_option": "1"}, {"xla_cpu_enable_fast_min_max": "perhaps"}]
)
def test_an_option_or_value_that_xla_does_not_know_is_left_out(unknown):
    known = {"xla_cpu_enable_fast_math": False}
    assert compiler.known_options({**unknown, **known}) == known


def test_a_platform_without_options_has_none():
    assert compiler.compiler_options("gpu") == {}
    assert compiler.jit(lambda x: x + 1)(1.0) == 2.0


def test_batches_of_products_are_not_yielded_to_a_library_that_takes_one_thread():
    """Where XLA has that library: it is named in the compiled program."""
    shapes = jnp.zeros((36, 256, 64)), jnp.zeros((36, 64, 128))

    def text(jit) -> str:
        return jit(lambda x, w: x @ w).lower(*shapes).compile().as_text()

    assert "ynn_fusion" not in text(compiler.jit)
    if not compiler.compiler_options("cpu"):
        pytest.skip("this XLA does not have it")
    assert "ynn_fusion" in text(jax.jit)
