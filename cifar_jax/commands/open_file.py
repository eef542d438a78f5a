"""Load the experiment file of a command, and combine it with the command's settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cifar_jax.config.changes import changes
from cifar_jax.config.fields import Fitted
from cifar_jax.config.settings import FILE_SETTINGS, Config, DataConfig, FileConfig, is_free
from cifar_jax.errors import UserError
from cifar_jax.study.file import ExperimentFile, load_file
from cifar_jax.study.grid import Arm
from cifar_jax.study.kept import check_unchanged


def open_file(
    path: Path | None, config: Config, flags: Mapping[str, str], where: Path | None
) -> tuple[ExperimentFile | None, Config]:
    """Load the experiment file of a command. Return it, and the config with its digest.

    Args:
        path: of the file, or None.
        config: of the command; recorded with a run or study if that is continued.
        flags: the command's flags, by setting, `section.name`.
        where: directory of the run or study.

    Raises:
        UserError: the file cannot be used, or a setting contradicts it.
    """
    recorded = config.experiment
    if path is None:
        if recorded != FileConfig():
            name = recorded.file or "FILE"
            raise UserError(
                f"{where or 'experiment'}: needs the experiment file {name}; give it after the "
                "command"
            )
        return None, config
    _check_free(path, config, flags)
    file = load_file(path)
    if recorded.sha256 is not None:
        check_unchanged(file, recorded.sha256, where or Path(recorded.file or path.name))
    if file.images is not None:
        for setting in ("data.dataset", "data.classes", "data.data_dir"):
            if setting in flags:
                raise UserError(f"{flags[setting]}: {path} has its own images")
        config = dataclasses.replace(config, data=_split(config.data, file.images.config.data))
    table = dataclasses.replace(file.table, arm=recorded.arm, hyper=recorded.hyper)
    return file, dataclasses.replace(config, experiment=table)


def _check_free(path: Path, config: Config, flags: Mapping[str, str]) -> None:
    """Check that a command sets nothing that its experiment file defines."""
    for setting, flag in flags.items():
        if not is_free(setting):
            raise UserError(f"{flag}: {path} defines it; change it there")
    for setting in (change.field for change in changes(Config(), config)):
        if not is_free(setting):
            raise UserError(f"--config: {setting}: {path} defines it; remove it from the config")


def _split(data: DataConfig, own: DataConfig) -> DataConfig:
    """Return the data of a config with the split of an experiment file, where it has a default."""
    if isinstance(data.val_examples, Fitted):
        data = dataclasses.replace(data, val_examples=own.val_examples)
    if data.train_examples is None:
        data = dataclasses.replace(data, train_examples=own.train_examples)
    return data


def given_settings(config: Config, flags: Mapping[str, str], has_file: bool) -> tuple[str, ...]:
    """Return the settings, `section.name`, that replace those of an experiment file.

    Args:
        config: of the command.
        flags: the command's flags, by setting.
        has_file: whether `config` is from a TOML file.
    """
    changed = [change.field for change in changes(Config(), config)] if has_file else []
    return tuple(field for field in FILE_SETTINGS if field in flags or field in changed)


def recorded_settings(file: ExperimentFile, arms: Sequence[Arm], config: Config) -> tuple[str, ...]:
    """Return the settings, `section.name`, of a recorded study that are not those of its file.

    Args:
        file: the experiment file.
        arms: of the study.
        config: of the study.
    """
    found = []
    for arm in (arm for arm in arms if arm.name in file.arms):
        own, recorded = dict(file.arm(arm.name).settings), arm.config(config, 0).training
        values = ((f, getattr(recorded, f.partition(".")[2])) for f in FILE_SETTINGS)
        found += [field for field, value in values if own.get(field) != value]
    return tuple(dict.fromkeys(found))


def choose_arm(
    file: ExperimentFile, name: str | None, config: Config, given: tuple[str, ...]
) -> Config:
    """Return the config of one arm of an experiment file.

    Args:
        file: the experiment file.
        name: of the arm; None for the recorded one, or the only one.
        config: of the command.
        given: settings that replace those of the file.

    Raises:
        UserError: there is no such arm, or it is not the recorded one.
    """
    recorded = config.experiment.arm
    only = next(iter(file.arms)) if len(file.arms) == 1 else None
    name = name or recorded or only
    if name is None or name not in file.arms:
        what = f"--arm {name}: is not in {file.path}" if name else f"--arm: {file.path} has several"
        raise UserError(f"{what}; allowed: {', '.join(file.arms)}")
    if recorded is not None:  # All settings of the run are recorded.
        given = FILE_SETTINGS
    return file.arm(name, given).config(config, config.training.seed)
