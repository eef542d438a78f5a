"""The report's training on images of noise, which cost as much as real ones."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from cifar_jax.config.build import build_experiment, hyperparams
from cifar_jax.config.settings import Config, ModelConfig, TrainingConfig
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, TrainState, init_state
from cifar_jax.kernels import fast
from cifar_jax.runner.streamed import HostData

WIDTHS = (32, 64, 128)
CLASSES = 10
_SIZE = 32


class Problem(NamedTuple):
    """Inputs of the training programs. `data` is on the device, `host` is not."""

    experiment: Experiment
    hyper: Hyper
    data: Data
    host: HostData

    def state(self, seed: int = 0) -> TrainState:
        """Return a fresh state, for a candidate that may donate its own."""
        initial = jax.jit(init_state, static_argnums=(0, 2))
        return initial(self.experiment, jax.random.key(seed), self.host.images.shape[1:])


def make_problem(
    norm: str,
    batch: int,
    n_train: int,
    widths: tuple[int, ...] = WIDTHS,
    precision: str = "float32",
    model: Any = None,
) -> Problem:
    """Make a problem of `n_train` images, and one validation image, whose cost is negligible.

    Args:
        model: replaces the report's CNN with a norm and our kernels.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_train + 1, _SIZE, _SIZE, 3), np.uint8)
    labels = rng.integers(0, CLASSES, n_train + 1, np.int32)
    train, val = slice(n_train), slice(n_train, None)
    training = TrainingConfig(batch_size=batch, precision=precision)
    config = Config(model=ModelConfig(num_classes=CLASSES), training=training)
    model = model or fast(CNN(num_classes=CLASSES, norm=norm, widths=widths))
    return Problem(
        replace(build_experiment(config), model=model),
        hyperparams(config),
        jax.device_put(Data(images[train], labels[train], images[val], labels[val])),
        HostData(images, labels, np.arange(n_train)),
    )


def forward_flops(widths: tuple[int, ...] = WIDTHS, hidden: int = 256) -> list[int]:
    """Return the forward pass's floating-point operations an image (2 a product), for each layer.

    They are those of the layer's definition.
    """
    channels, size, flops = 3, _SIZE, []
    for width in widths:
        flops.append(2 * 9 * channels * width * size * size)
        channels, size = width, size // 2
    return [*flops, 2 * channels * size * size * hidden, 2 * hidden * CLASSES]


def training_flops(widths: tuple[int, ...] = WIDTHS) -> int:
    """Return those of a training step: three passes, without the gradient of the images."""
    flops = forward_flops(widths)
    return 3 * sum(flops) - flops[0]
