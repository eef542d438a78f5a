"""What a study compares: its arms, and how a run's experiment is built from its config."""

from dataclasses import dataclass, fields
from pathlib import Path

from cifar_jax.config.build import build_experiment, hyperparams
from cifar_jax.config.settings import Config
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment
from cifar_jax.errors import UserError
from cifar_jax.runner.group import Run
from cifar_jax.study.file import OF_HYPER, ExperimentFile
from cifar_jax.study.grid import Arm, norm_arms, parse_arms
from cifar_jax.study.kept import check_unchanged
from cifar_jax.study.user_code import text_of


@dataclass(frozen=True)
class Given:
    """What a command gives a study besides its config.

    Attributes:
        file: the experiment file.
        settings: `section.name` of those that replace the file's.
        demo: whether the page has the networks.
    """

    file: ExperimentFile | None = None
    settings: tuple[str, ...] = ()
    demo: bool = True


NO_FILE = Given()
_DESCRIBED = ("model", "inputs", "loss", "optimizer", "schedule", "evaluated")


def study_arms(config: Config, given: Given) -> tuple[Arm, ...]:
    """Return the arms of a study, without a swept value: those of its file, or norms.

    Raises:
        UserError: an arm is unknown or named twice.
    """
    file = given.file
    if file is None:
        return norm_arms(config)
    return tuple(
        file.arm(name, given.settings)
        for name in parse_arms(config, list(file.arms), list(file.arms))
    )


def build(config: Config, file: ExperimentFile | None) -> tuple[Experiment, Hyper]:
    """Build the experiment and the hyper-parameters of a run."""
    if file is None:
        return build_experiment(config), hyperparams(config)
    return file.build(config)


def described(experiment: Experiment, hyper: Hyper) -> dict[str, str]:
    """Return an experiment in words, by field, and the hyper-parameters that it adds."""
    words = {name: text_of(getattr(experiment, name)) for name in _DESCRIBED}
    if experiment.evaluated is Experiment.evaluated:
        words["evaluated"] = "parameters as trained"
    own = [field.name for field in fields(hyper) if field.name not in OF_HYPER]
    if own:
        values = [f"{name} {float(getattr(hyper, name)):g}" for name in own]
        words["hyper-parameters"] = ", ".join(values)
    return words


def make_run(config: Config, file: ExperimentFile | None, workdir: Path, label: str = "") -> Run:
    """Return a run, ready to train."""
    experiment, hyper = build(config, file)
    words = None
    if file is not None:
        words = described(file.arms[config.experiment.arm or ""].experiment, hyper)
    return Run(config, experiment, hyper, workdir, label, words)


def check_file(
    file: ExperimentFile | None, config: Config, where: Path, how: str = "after the command"
) -> None:
    """Check that a recorded run or study is of the given experiment file.

    Args:
        file: the given file, or None.
        config: recorded.
        where: directory of the run or study, or one inside it.
        how: a user gives the file, for the message.

    Raises:
        UserError: the record is of a file, and another one or none is given; or the reverse.
    """
    recorded = config.experiment
    if recorded.file is None and file is None:
        return
    if recorded.file is None:
        raise UserError(f"{where}: is of no experiment file; leave out FILE")
    if file is None:
        raise UserError(f"{where}: needs the experiment file {recorded.file}; give it {how}")
    check_unchanged(file, recorded.sha256, where)
