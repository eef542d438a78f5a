"""The options that training is compiled with."""

import jax
import jax.numpy as jnp
import pytest

from cifar_jax.kernels import compiler

pytestmark = pytest.mark.optimised


@pytest.fixture
def options(monkeypatch):
    """Sets the options of the CPU."""

    def choose(**chosen):
        monkeypatch.setattr(compiler, "_OPTIONS", {"cpu": chosen})
        compiler.compiler_options.cache_clear()

    yield choose
    compiler.compiler_options.cache_clear()


def test_an_option_unknown_to_xla_is_dropped(options):
    options(xla_no_such_option="1", xla_cpu_enable_fast_math=False)
    assert compiler.compiler_options("cpu") == {"xla_cpu_enable_fast_math": False}
    assert compiler.compiler_options("gpu") == {}
    assert compiler.jit(lambda x: x + 1)(1.0) == 2.0


def test_a_value_unknown_to_xla_is_dropped(options):
    options(xla_cpu_enable_fast_math="perhaps")
    assert compiler.compiler_options("cpu") == {}


def test_batches_of_products_are_not_yielded_to_a_library_that_takes_one_thread():
    """Where XLA has that library: it is named in the compiled program."""
    shapes = jnp.zeros((36, 256, 64)), jnp.zeros((36, 64, 128))

    def text(jit) -> str:
        return jit(lambda x, w: x @ w).lower(*shapes).compile().as_text()

    assert "ynn_fusion" not in text(compiler.jit)
    if not compiler.compiler_options("cpu"):
        pytest.skip("this XLA does not have it")
    assert "ynn_fusion" in text(jax.jit)
