"""Groups of runs without files, for tests of what happens between programs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cifar_jax.config.settings import Config, TrainingConfig
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState
from cifar_jax.runner.boundaries import Boundary, boundaries
from cifar_jax.runner.group import EPOCH, Group, Run
from cifar_jax.runner.programs import CompiledEpoch


def group_of(
    program: CompiledEpoch,
    hyper: Hyper,
    state: TrainState,
    last: int,
    workdirs: Sequence[Path] = (Path("study/arm/seed0"),),
) -> Group:
    """A group before its first step, of 20 training images.

    Args:
        hyper, state: with a leading axis of runs.
        last: epoch.
    """
    config = Config(training=TrainingConfig(epochs=last))
    runs = tuple(Run(config, Experiment(epochs=last), Hyper(), workdir) for workdir in workdirs)
    history = np.zeros((len(runs), 0), EPOCH)
    at = Boundary(state, 1, 0, 0.0)
    return Group(runs, tuple({} for _ in runs), program, hyper, 20, at, history)


def trained(group: Group) -> Group:
    """The group after its last epoch."""
    for at in boundaries(group.program, group.hyper, group.at, group.last):
        group.advance(at)
    return group
