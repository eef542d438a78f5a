"""Fit default sizes to a dataset, and report classes that a split lacks."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from cifar_jax.config import Config, Fitted
from cifar_jax.errors import counted

_MOST_NAMED = 10


def fit_defaults(config: Config, n: int) -> tuple[Config, list[str]]:
    """Lower default sizes that are too large for a dataset. Sizes that the user set stay.

    Validation takes at most a fifth of the training images, and keeps `train_examples` of them. A
    batch is at most the remaining images. The last batch of an epoch must not be a single image,
    which has no batch variance.

    Args:
        config: of the run.
        n: training images before the split.

    Returns:
        The config with plain numbers, and a line for each lowered default.
    """
    data, training = config.data, config.training
    notes: list[str] = []
    n_val, batch = int(data.val_examples), int(training.batch_size)
    if isinstance(data.val_examples, Fitted):
        most = n // 5
        if data.train_examples is not None:
            most = min(most, n - data.train_examples)
        n_val = min(n_val, max(1, most))
        if n_val < data.val_examples:
            notes.append(
                f"--val-examples: {n_val:,} instead of {data.val_examples:,}, "
                f"for {counted(n, 'image')}"
            )
    if isinstance(training.batch_size, Fitted):
        n_train = min(n - n_val, data.train_examples or n)
        batch = max(1, min(batch, n_train))
        while batch > 2 and n_train % batch == 1:
            batch -= 1
        if batch < training.batch_size:
            notes.append(
                f"--batch-size: {batch} instead of {training.batch_size}, "
                f"for {counted(n_train, 'image')} to train on"
            )
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(data, val_examples=n_val),
        training=dataclasses.replace(training, batch_size=batch),
    )
    return config, notes


def split_notes(parts: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> list[str]:
    """Return a line for each part of the training images that lacks a class.

    Args:
        parts: name of each part, and its labels, integers.
        classes: names of all classes.
    """
    notes = []
    for part, labels in parts.items():
        absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
        if len(absent):
            named = ", ".join(classes[row] for row in absent[:_MOST_NAMED])
            more = f" and {len(absent) - _MOST_NAMED} more" if len(absent) > _MOST_NAMED else ""
            notes.append(f"the split has no {part} image of: {named}{more}")
    return notes
