"""Load the experiment file of a command, and combine it with the command's settings."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from cifar_jax.config.changes import changes
from cifar_jax.config.settings import FILE_SETTINGS, Config, is_free
from cifar_jax.errors import UserError
from cifar_jax.study.file import ExperimentFile, load_file


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
        if recorded.file is not None:
            raise UserError(
                f"{where or recorded.file}: needs the experiment file {recorded.file}; give it "
                "after the command"
            )
        return None, config
    own = {change.field for change in changes(Config(), config) if not is_free(change.field)}
    for setting in [*flags, *sorted(own)]:
        if not is_free(setting):
            name = flags.get(setting, setting)
            raise UserError(f"{name}: {path} defines it; change it there")
    file = load_file(path)
    if file.images is not None:
        for setting in ("data.dataset", "data.classes", "data.data_dir"):
            if setting in flags:
                raise UserError(f"{flags[setting]}: {path} has its own images")
        if "data.val_examples" not in flags:
            n_val = file.images.config.data.val_examples
            data = dataclasses.replace(config.data, val_examples=n_val)
            config = dataclasses.replace(config, data=data)
    table = dataclasses.replace(file.table, arm=recorded.arm, hyper=recorded.hyper)
    return file, dataclasses.replace(config, experiment=table)


def given_settings(config: Config, flags: Mapping[str, str], has_file: bool) -> tuple[str, ...]:
    """Return the settings, `section.name`, that replace those of an experiment file.

    Args:
        config: of the command.
        flags: the command's flags, by setting.
        has_file: whether `config` is from a TOML file.
    """
    changed = [change.field for change in changes(Config(), config)] if has_file else []
    return tuple(field for field in FILE_SETTINGS if field in flags or field in changed)


def choose_arm(
    file: ExperimentFile, name: str | None, config: Config, given: tuple[str, ...]
) -> Config:
    """Return the config of one arm of an experiment file.

    Args:
        file: the experiment file.
        name: of the arm; None for the recorded one.
        config: of the command.
        given: settings that replace those of the file.

    Raises:
        UserError: there is no such arm, or it is not the recorded one.
    """
    recorded = config.experiment.arm
    name = name or recorded
    if name is None or name not in file.arms:
        what = f"--arm {name}: is not in {file.path}" if name else f"--arm: {file.path} has several"
        raise UserError(f"{what}; allowed: {', '.join(file.arms)}")
    if recorded is not None:  # All settings of the run are recorded.
        given = FILE_SETTINGS
    return file.arm(name, given).config(config, config.training.seed)
