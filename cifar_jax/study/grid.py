"""Runs of a study: arms x values of one swept setting x seeds.

An arm is a name with settings: a norm, or an arm of an experiment file. Settings that belong
together, such as an optimiser and its learning rate, are swept as one. `+` joins their fields, and
`:` joins the texts of their values. All runs of a seed are paired. They have the same split,
initial values, order and augmentation, unless the arm or the setting changes these.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_jax.config import tables
from cifar_jax.config.settings import (
    FILE_SETTINGS,
    NORMS,
    SECTIONS,
    WITHOUT_FLAGS,
    Config,
    StudyConfig,
    is_free,
)
from cifar_jax.errors import UserError, shown
from cifar_jax.study.values import (
    HYPER,
    HYPER_NAME,
    Value,
    last_names,
    one_name,
    parse_hyper,
    parse_value,
    parts,
    set_values,
    setting_name,
    value_text,
)

OFF = ("0", "0.0", "false", "none")

# Settings that a sweep cannot vary: the seeds, the norms (see `arms`) and the images.
FIXED = (
    "training.seed",
    "model.norm",
    "model.num_classes",
    "data.dataset",
    "data.classes",
    "data.data_dir",
    "data.folder_is_cifar10",
    "data.resize",
    "data.image_size",
    "data.test_split",
    "data.val_split",
    "data.mean",
    "data.std",
    "data.white_level",
    "data.drop_duplicates",
    "data.pipeline",
)


def _path_part(text: str) -> str:
    """Make text safe for a file name. Changed text gets a hash, to stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:60]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


Settings = tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Arm:
    """Settings in which the runs of a study differ, besides the seed.

    Attributes:
        name: of the norm, or of the arm in an experiment file.
        settings: pairs of `section.name` and value.
        field: the swept setting as `section.name`, or several joined by `+`; empty without a
            sweep.
        value: of that setting; None without a sweep.
    """

    name: str
    settings: Settings
    field: str = ""
    value: Value | None = None

    @property
    def directory(self) -> str:
        """Name of its directory in the study's: `batch`, or `batch-learning_rate-0.05`."""
        return arm_directory(self.name, self.field, self.value)

    @property
    def label(self) -> str:
        """Name in text: `batch`, or `batch, learning rate 0.05`."""
        if self.value is None:
            return self.name
        found = parts(self.field, self.value)
        return ", ".join([self.name, *(f"{setting_name(field)} {text}" for field, text in found)])

    def config(self, config: Config, seed: int) -> Config:
        """Return the config of one of its runs, given the study's."""
        for field, value in self.settings:
            config = set_values(config, field, value)
        if self.value is not None:
            config = set_values(config, self.field, self.value)
        return dataclasses.replace(
            config,
            training=dataclasses.replace(config.training, seed=seed),
            study=StudyConfig(),
        )


def arm_directory(name: str, field: str = "", value: Value | None = None) -> str:
    """Return the name of an arm's directory in the study's."""
    if value is None:
        return name
    values = "_".join(_path_part(text) for _, text in parts(field, value))
    return f"{name}-{last_names(field)}-{values}"


NORM_LABELS = {
    "none": "baseline",
    "batch": "BatchNorm",
    "layer": "LayerNorm",
    "instance": "InstanceNorm",
    "group": "GroupNorm",
    "ghost": "Ghost BatchNorm",
}


def norm_arm(norm: str) -> Arm:
    """Return the arm of a norm."""
    return Arm(norm, (("model.norm", norm),))


@dataclass(frozen=True)
class Sweep:
    """A setting and its values.

    Attributes:
        field: `section.name`, or several joined by `+`.
        values: numbers by size, others as given. Values of several fields are texts joined by
            `:`.
    """

    field: str
    values: tuple[Value, ...]

    @property
    def text(self) -> str:
        """Text in the form that `parse_sweep` reads."""
        return f"{self.field}={','.join(map(value_text, self.values))}"

    @property
    def name(self) -> str:
        """Name in file names: `learning_rate`, or `optimizer-learning_rate`."""
        return last_names(self.field)

    @property
    def _switches(self) -> bool:
        """Whether it has several settings that are all off at its first value."""
        off = all(text in OFF for _, text in parts(self.field, self.values[0]))
        return "+" in self.field and off

    def value_name(self, value: Value) -> str:
        """Return a value in text, without the setting: "0.05", "adamw, 0.001".

        If all settings are off at the first value, name those that are on: "mixup 1.0".
        """
        found = parts(self.field, value)
        if not self._switches:
            return ", ".join(text for _, text in found)
        on = [f"{one_name(field)} {text}" for field, text in found if text not in OFF]
        return ", ".join(on) or "none of them"

    def at(self, value: Value) -> str:
        """Return setting and value in text: "learning rate 0.05"."""
        found = parts(self.field, value)
        if not self._switches:
            return ", ".join(f"{one_name(field)} {text}" for field, text in found)
        if all(text in OFF for _, text in found):
            return f"none of {setting_name(self.field)}"
        return self.value_name(value)


def ordered(values: Sequence[Value]) -> tuple[Value, ...]:
    """Return the different values, numbers by size and others in the given order."""
    unique = tuple(dict.fromkeys(values))
    numbers = all(type(value) in (int, float) for value in unique)
    return tuple(sorted(unique)) if numbers else unique


def parse_arms(config: Config, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a study's arms.

    Args:
        config: of the study.
        known: all names.
        default: names if the config has none.

    Raises:
        UserError: an arm is unknown or named twice.
    """
    if config.study.arms is None:
        return tuple(default)
    arms = tuple(arm.strip() for arm in config.study.arms.split(","))
    for arm in arms:
        if arm not in known:
            raise UserError(f"--arms: {shown(arm)} is not known; allowed: {', '.join(known)}")
    if len(set(arms)) < len(arms):
        raise UserError(f"--arms {config.study.arms}: an arm is named twice")
    return arms


def norm_arms(config: Config) -> tuple[Arm, ...]:
    """Return the arms of a study of norms. Raises as `parse_arms`."""
    return tuple(norm_arm(name) for name in parse_arms(config, NORMS, ("none", "batch")))


def _all_fields(config: Config) -> list[str]:
    """Return `section.name` of every field of a run."""
    own = [HYPER + name for name in parse_hyper(config.experiment.hyper)]
    return own + [
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        if section not in ("study", *WITHOUT_FLAGS)
        for field in dataclasses.fields(kind)
    ]


def _value_of(config: Config, field: str) -> Value:
    section, name = field.split(".")
    if field.startswith(HYPER):
        return parse_hyper(config.experiment.hyper)[name]
    value: Value = getattr(getattr(config, section), name)
    return value


def swept_by(directory: str, name: str, config: Config) -> tuple[str, Value | None] | None:
    """Return the swept field and value of a run from the name of its folder and its config.

    Args:
        directory: name of the folder.
        name: of the arm.
        config: of the run.

    Returns:
        ("", None) without a sweep; None if the folder's name does not fit.
    """
    if directory == name:
        return "", None
    known = {last_names(field): field for field in _all_fields(config)}
    fields: list[str] = []
    for part in directory.removeprefix(f"{name}-").split("-"):
        if part not in known:
            return None
        fields.append(known[part])
        values = [_value_of(config, field) for field in fields]
        value = values[0] if len(values) == 1 else ":".join(map(value_text, values))
        if arm_directory(name, "+".join(fields), value) == directory:
            return "+".join(fields), value
    return None


def _swept_field(name: str, config: Config) -> str:
    """Return `section.name` of a field given with or without its section."""
    own = name.removeprefix(HYPER)
    if own != name and HYPER_NAME.fullmatch(own):
        if config.experiment.file is None:
            raise UserError(f"--sweep {name}: needs an experiment file; give it after the command")
        return f"training.{own}" if f"training.{own}" in FILE_SETTINGS else name
    fields = _all_fields(config)
    found = [field for field in fields if name in (field, field.split(".")[1])]
    if not found and config.experiment.file:
        raise UserError(
            f"--sweep: {shown(name)} is no setting; allowed: learning_rate, batch_size, ..., and "
            f"hyper.NAME for a hyper-parameter of {config.experiment.file}; a field of a model is "
            "fixed when it is compiled, so make an arm of each value"
        )
    if not found:
        raise tables.unknown(name, [f.split(".")[1] for f in fields], "--sweep")
    if len(found) > 1:
        raise UserError(f"--sweep: {name!r} may be {' or '.join(found)}; write one of these")
    if found[0] in FIXED:
        why = "; norms are compared by --arms" if found[0] == "model.norm" else ""
        raise UserError(f"--sweep: {name!r} is the same in all runs of a study{why}")
    if config.experiment.file and not is_free(found[0]):
        raise UserError(f"--sweep: {config.experiment.file} defines {name!r}; change it there")
    return found[0]


def _parse_values(field: str, text: str) -> Value:
    """Parse a value of a sweep. Values of several fields become one text."""
    fields = field.split("+")
    texts = text.split(":") if len(fields) > 1 else [text]
    if len(texts) != len(fields):
        raise UserError(
            f"--sweep {last_names(field).replace('-', '+')}: {shown(text.strip())} must be "
            f"{len(fields)} values joined by ':'"
        )
    values = [parse_value(one, part.strip()) for one, part in zip(fields, texts, strict=True)]
    return values[0] if len(values) == 1 else ":".join(map(value_text, values))


def parse_sweep(config: Config) -> Sweep | None:
    """Parse the sweep of a study, or return None.

    Its form is `learning_rate=0.01,0.05`, `training.learning_rate=...`,
    `optimizer+learning_rate=sgd:0.01,adamw:0.001`, or `hyper.gamma=1,2` for a hyper-parameter that
    an experiment file adds.

    Raises:
        UserError: a field is unknown or cannot be swept, or a value is not allowed.
    """
    text = config.study.sweep
    if text is None:
        return None
    names, equals, listed = text.partition("=")
    if not equals:
        raise UserError(f"--sweep {text}: must be like learning_rate=0.01,0.05")
    fields = [_swept_field(name.strip(), config) for name in names.split("+")]
    if len(set(fields)) < len(fields):
        raise UserError(f"--sweep {text}: a setting is named twice")
    field = "+".join(fields)
    values = [_parse_values(field, value) for value in listed.split(",")]
    if len(set(values)) < len(values):
        raise UserError(f"--sweep {text}: a value is named twice")
    return Sweep(field, ordered(values))


def grid(arms: Sequence[Arm], sweep: Sweep | None) -> list[Arm]:
    """Return the arms of all runs: value by value, and at each value every arm."""
    if sweep is None:
        return list(arms)
    return [
        dataclasses.replace(arm, field=sweep.field, value=value)
        for value in sweep.values
        for arm in arms
    ]
