"""Fit default sizes to a dataset, and report classes that a split lacks."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cifar_jax.config.fields import Fitted
from cifar_jax.config.settings import Config
from cifar_jax.errors import counted

_MOST_NAMED = 10


def fit_defaults(
    config: Config, n: int, train_examples: Sequence[int | None] = ()
) -> tuple[Config, list[str]]:
    """Lower default sizes that are too large for a dataset. Sizes that the user set stay.

    Validation takes at most a fifth of the training images, and keeps `train_examples` of them. A
    batch is at most the remaining images. The last batch of an epoch must not be a single image,
    which has no batch variance.

    Args:
        config: of the run.
        n: training images, before validation images are taken.
        train_examples: values of a sweep, each of which the sizes must fit; empty: the config's.

    Returns:
        The config with plain numbers, and a line for each lowered default.
    """
    data, training = config.data, config.training
    sizes = train_examples or (data.train_examples,)
    notes: list[str] = []
    n_val, batch = int(data.val_examples), int(training.batch_size)
    if isinstance(data.val_examples, Fitted):
        most = min(n // 5, *(n - (size or 0) for size in sizes))
        n_val = min(n_val, max(1, most))
        if n_val < data.val_examples:
            notes.append(
                f"--val-examples: {n_val:,} instead of {data.val_examples:,}, "
                f"for {counted(n, 'image')}"
            )
    if isinstance(training.batch_size, Fitted):
        trained = [min(n - n_val, size or n) for size in sizes]
        n_train = min(trained)
        batch = max(1, min(batch, n_train))
        while batch > 2 and any(size % batch == 1 for size in trained):
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
