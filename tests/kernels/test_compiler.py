"""The options that training is compiled with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.model import CNN
from cifar_jax.core.train import Experiment, init_state
from cifar_jax.kernels import compiler
from cifar_jax.runner.programs import first_state

pytestmark = pytest.mark.optimised


@pytest.mark.parametrize(
    "unknown", [{"xla_no_such_option": "1"}, {"xla_cpu_enable_fast_min_max": "perhaps"}]
)
def test_an_option_or_value_that_xla_does_not_know_is_left_out(unknown):
    known = {"xla_cpu_enable_fast_math": False}
    assert compiler.known_options({**unknown, **known}) == known


def test_a_platform_without_options_has_none():
    assert compiler.compiler_options("tpu", several=True) == {}
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


@pytest.mark.optimised
def test_initial_values_are_those_of_init_state_bit_by_bit() -> None:
    """A cheaper compilation must not change them; nor the key inside the program."""
    experiment, shape = Experiment(CNN(norm="batch", widths=(4,), hidden=8)), (16, 16, 3)
    plain = jax.jit(lambda key: init_state(experiment, key, shape))(jax.random.key(2**32 - 1))
    found = first_state(experiment, 2**32 - 1, shape)
    for mine, its in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        if jax.dtypes.issubdtype(its.dtype, jax.dtypes.prng_key):
            mine, its = jax.random.key_data(mine), jax.random.key_data(its)
        assert np.asarray(mine).tobytes() == np.asarray(its).tobytes()
