"""Whole trainings: the same twice, apart for other seeds, as a grid, and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.models.cnn import CNN
from cifar_jax.training.epoch import run_epoch
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec
from cifar_jax.training.train import train


def hyperparams(
    learning_rate: float = 0.01, momentum: float = 0.9, weight_decay: float = 5e-4
) -> Hyperparams:
    """As arrays, for which a jitted function compiles once."""
    return Hyperparams(*map(jnp.float32, (learning_rate, momentum, weight_decay)))


HYPER = hyperparams()


def host(tree: object) -> list[np.ndarray]:
    def plain(leaf: jax.Array) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(tree)]


def test_history_reports_the_rate_of_each_epoch(tiny_train) -> None:
    _, history = tiny_train(HYPER, jax.random.key(0))
    assert all(field.shape == (30,) for field in history)
    rates = np.asarray(history.learning_rate)[[0, 9, 10, 19, 20, 29]]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


def test_the_same_seed_gives_the_same_bits(tiny_train) -> None:
    first, second = (host(tiny_train(HYPER, jax.random.key(42))) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_differs(tiny_train) -> None:
    (_, first), (_, second) = (tiny_train(HYPER, jax.random.key(seed)) for seed in (42, 43))
    assert (np.asarray(first.train_loss) != np.asarray(second.train_loss)).all()


def test_another_momentum_or_decay_differs(tiny_train) -> None:
    settings = (HYPER, hyperparams(momentum=0.5), hyperparams(weight_decay=0.1))
    losses = {float(tiny_train(hyper, jax.random.key(0))[1].val_loss[-1]) for hyper in settings}
    assert len(losses) == 3


def test_training_is_its_epochs_one_after_the_other(
    tiny_spec, tiny_data, tiny_state, tiny_train
) -> None:
    _, history = tiny_train(HYPER, jax.random.key(0))
    epoch = jax.jit(lambda state: run_epoch(tiny_spec, HYPER, state, tiny_data))
    state = tiny_state
    for i in range(3):
        state, metrics = epoch(state)
        for field, value in metrics._asdict().items():
            np.testing.assert_allclose(value, getattr(history, field)[i], rtol=1e-4, err_msg=field)


def test_a_grid_is_its_runs(tiny_spec, tiny_data, tiny_train) -> None:
    """Seeds and learning rates at once. Later epochs amplify rounding, so the first few count."""
    keys = jax.random.split(jax.random.key(0), 3)
    hypers = Hyperparams(
        jnp.array([0.01, 0.003, 0.02]), jnp.array([0.9, 0.8, 0.9]), jnp.array([5e-4, 0.0, 0.1])
    )
    grid = jax.jit(jax.vmap(lambda hyper, key: train(tiny_spec, hyper, tiny_data, key)))
    _, history = grid(hypers, keys)
    assert all(field.shape == (3, 30) for field in history)
    for i in range(3):
        _, alone = tiny_train(jax.tree.map(lambda h, i=i: h[i], hypers), keys[i])
        for field, value in alone._asdict().items():
            together = getattr(history, field)[i, :3]
            np.testing.assert_allclose(together, value[:3], rtol=1e-4, err_msg=field)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_small_run_learns_512_images(norm: str) -> None:
    """Ten colours under strong noise, with augmentation and dropout."""
    rng = np.random.default_rng(0)
    colours = rng.integers(32, 224, (10, 1, 1, 3))
    labels = np.arange(640) % 10
    noise = rng.normal(0, 48, (640, 16, 16, 3))
    images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    arrays = (
        images[:512],
        labels[:512].astype(np.int32),
        images[512:],
        labels[512:].astype(np.int32),
    )
    data = TrainData(*map(jnp.asarray, arrays))
    model = CNN(norm=norm, widths=(8, 16), hidden=64)
    spec = TrainSpec(model, batch_size=32, epochs=10)
    _, history = jax.jit(lambda key: train(spec, HYPER, data, key))(jax.random.key(42))
    assert float(history.train_loss[0]) > 1.5
    assert float(history.train_loss[-1]) < 0.6
    assert float(history.val_accuracy[-1]) > 0.95
