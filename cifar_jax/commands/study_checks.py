"""Check the arms of a study before anything is written."""

from collections.abc import Sequence

from cifar_jax.config.checks import check_batches, check_layers, check_norm, check_precision
from cifar_jax.runner.prepare import Prepared, split_rows
from cifar_jax.study.definition import build
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.file_checks import Problem, check_arm
from cifar_jax.study.grid import Arm


def check_arms(arms: Sequence[Arm], prepared: Prepared, file: ExperimentFile | None) -> None:
    """Check each arm's network, precision, layers and batches.

    Raises:
        UserError: an arm does not fit the images, or its parts do not fit together.
    """
    shape, classes = prepared.dataset.train_images.shape[1:], len(prepared.dataset.classes)
    traced = set()
    for arm in arms:
        config = arm.config(prepared.config, 0)
        n_train = len(split_rows(config, prepared.dataset)[0])
        check_batches(config, n_train)
        experiment, _ = build(config, file)
        if file is None:
            check_norm(config.model)
            check_precision(config.training)
            check_layers(config, shape)
        elif (arm.name, experiment, n_train) not in traced:
            check_arm(file, config, Problem(shape, classes, n_train))
            traced.add((arm.name, experiment, n_train))
