"""Initial values of the report's network against the closed form of their distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.models.cnn import CNN

FAN_IN = {"conv1": 27, "conv2": 288, "conv3": 576, "dense1": 2048, "dense2": 256}
SEEDS = 4


@pytest.fixture(scope="module")
def initial() -> dict[str, dict[str, np.ndarray]]:
    """Parameters of SEEDS draws, on a leading axis."""
    model = CNN(norm="batch")

    def draw(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        return model.init(key, jnp.zeros((1, 32, 32, 3)), train=False)

    return jax.device_get(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), SEEDS)))


@pytest.mark.parametrize("leaf", ["kernel", "bias"])
@pytest.mark.parametrize("layer", FAN_IN)
def test_values_are_uniform_within_one_over_root_fan_in(initial, layer: str, leaf: str) -> None:
    # In units of the bound: U(-1, 1) has moments 0, 1/3 and 1/5.
    values = initial["params"][layer][leaf].astype(np.float64).ravel() * np.sqrt(FAN_IN[layer])
    n = values.size
    assert np.abs(values).max() <= 1 + 1e-6
    # P(|u| < 1 - 20 / n for all n) = exp(-20)
    assert values.min() < -1 + 40 / n
    assert values.max() > 1 - 40 / n
    # Five standard errors of the mean and the variance.
    assert abs(values.mean()) < 5 * np.sqrt(1 / 3 / n)
    assert abs(np.mean(values**2) - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / n)


def test_batch_norm_starts_as_the_identity(initial) -> None:
    starts = {"scale": 1, "bias": 0, "mean": 0, "var": 1}
    for index in range(1, 5):
        leaves = initial["params"][f"norm{index}"] | initial["batch_stats"][f"norm{index}"]
        assert leaves.keys() == starts.keys()
        for name, leaf in leaves.items():
            assert np.all(leaf == starts[name]), name


def test_kernel_and_bias_are_drawn_independently(initial) -> None:
    kernel, bias = (initial["params"]["dense2"][leaf].ravel() for leaf in ("kernel", "bias"))
    assert not np.isin(bias, kernel).all()
