"""The one pure function that is the program."""

import jax
from jax import lax

from cifar_jax.training.epoch import EpochMetrics, run_epoch
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec, TrainState, init_state


def train(
    spec: TrainSpec, hyper: Hyperparams, data: TrainData, key: jax.Array
) -> tuple[TrainState, EpochMetrics]:
    """A whole training as one program, without input or output.

    `spec` is static. `hyper` and `key` are traced: `jax.vmap` over them turns one training into a
    grid of seeds and settings that share the data on the device.

    Returns:
        The final state and the history, each field float32 (epochs,).
    """

    def body(state: TrainState, _: None) -> tuple[TrainState, EpochMetrics]:
        return run_epoch(spec, hyper, state, data)

    state = init_state(spec, key, data.train_images.shape[1:])
    return lax.scan(body, state, length=spec.epochs)
