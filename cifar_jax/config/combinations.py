"""Checks of settings that contradict each other."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cifar_jax.config.settings import TrainingConfig
from cifar_jax.errors import UserError, shown


def parse_milestones(text: str) -> tuple[float, ...]:
    """Parse increasing epochs from text such as `82,123`, or `82+123` in a sweep.

    Raises:
        UserError: the text has another form.
    """
    where = f"--milestones {shown(text)}"
    try:
        epochs = tuple(float(part) for part in text.replace("+", ",").split(","))
    except ValueError:
        raise UserError(f"{where}: must be epochs such as 82,123") from None
    if not all(0 < epoch <= 1e5 for epoch in epochs):
        raise UserError(f"{where}: each epoch must be above 0 and at most 100000")
    if any(late <= early for early, late in itertools.pairwise(epochs)):
        raise UserError(f"{where}: each epoch must be above the previous one")
    return epochs


def milestones(training: TrainingConfig) -> tuple[float, ...]:
    """Return the epochs at which `multistep` drops the rate; () for other schedules.

    Raises:
        UserError: the milestones are missing or not valid.
    """
    if training.schedule != "multistep":
        return ()
    if training.milestones is None:
        raise UserError("--schedule multistep: needs --milestones, epochs such as 82,123")
    return parse_milestones(training.milestones)


def depends_on_length(training: TrainingConfig) -> bool:
    """Return whether the learning rate of an epoch depends on the number of epochs."""
    return training.schedule in ("cosine", "onecycle")


class _Need(NamedTuple):
    """A setting that has an effect only with another setting."""

    field: str
    flag: str
    met: Callable[[TrainingConfig], bool]
    only: str


def _erases(training: TrainingConfig) -> bool:
    return training.random_erasing > 0


_NEEDS = (
    _Need(
        "milestones",
        "--milestones",
        lambda training: training.schedule == "multistep",
        "--schedule multistep",
    ),
    _Need(
        "final_fraction",
        "--final-fraction",
        lambda training: training.schedule == "cosine",
        "--schedule cosine",
    ),
    *(
        _Need(name, f"--{name.replace('_', '-')}", _erases, "--random-erasing above 0")
        for name in ("erasing_area_low", "erasing_area_high", "erasing_ratio")
    ),
)


def check_training(training: TrainingConfig) -> None:
    """Check the settings of one run.

    Raises:
        UserError: two settings contradict each other.
    """
    if training.milestones is not None:
        parse_milestones(training.milestones)
    milestones(training)
    if training.warmup_epochs >= training.epochs:
        raise UserError(
            f"--warmup-epochs {training.warmup_epochs:g}: must be below --epochs {training.epochs}"
        )
    if training.optimizer == "nesterov" and training.momentum == 0:
        raise UserError("--optimizer nesterov: needs --momentum above 0")
    if training.erasing_area_low > training.erasing_area_high:
        raise UserError(
            f"--erasing-area-low {training.erasing_area_low:g}: must be at most "
            f"--erasing-area-high {training.erasing_area_high:g}"
        )


def check_all(trainings: Sequence[TrainingConfig]) -> None:
    """Check the settings of several runs.

    Raises:
        UserError: settings of a run contradict each other, or no run uses a setting.
    """
    for training in trainings:
        check_training(training)
    default = TrainingConfig()
    for need in _NEEDS:
        given = [t for t in trainings if getattr(t, need.field) != getattr(default, need.field)]
        if given and not any(map(need.met, given)):
            value = getattr(given[0], need.field)
            raise UserError(f"{need.flag} {value}: needs {need.only}")
