"""Runs of a study: norms x values of one swept setting x seeds.

An arm is a norm, or with a sweep a norm at one value of the setting. Settings that belong together,
such as an optimiser and its learning rate, are swept as one: `+` joins their fields, and `:` joins
the texts of their values. All runs of a seed are paired: they have the same split, initial values,
order and augmentation, unless the setting changes these.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_jax.config import tables
from cifar_jax.config.settings import NORMS, SECTIONS, Config, StudyConfig
from cifar_jax.errors import UserError, shown

Value = bool | int | float | str

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
    "data.test_split",
    "data.white_level",
    "data.drop_duplicates",
    "data.pipeline",
)


def setting_name(field: str) -> str:
    """Return the name of a setting in text: `training.learning_rate` is "learning rate"."""
    *firsts, last = map(_one_name, field.split("+"))
    return f"{', '.join(firsts)} and {last}" if firsts else last


def _one_name(field: str) -> str:
    section, name = field.split(".")
    return section if name == "name" else name.replace("_", " ")


def _last_names(field: str) -> str:
    """Return the name of a setting in file names."""
    return "-".join(_one_name(part).replace(" ", "_") for part in field.split("+"))


def value_text(value: Value) -> str:
    """Return a value as TOML writes it: 0.05, 128, true."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parts(field: str, value: Value) -> list[tuple[str, str]]:
    """Return each field of a setting with the text of its value."""
    texts = value_text(value).split(":") if "+" in field else [value_text(value)]
    return list(zip(field.split("+"), texts, strict=True))


def set_values(config: Config, field: str, value: Value) -> Config:
    """Set a swept setting of `config` to one of its values."""
    if "+" not in field:
        section, name = field.split(".")
        return tables.override(config, section, name, value, "--sweep")
    for one, text in parts(field, value):
        section, name = one.split(".")
        parsed = tables.parse_value(SECTIONS[section], name, text, f"--sweep {name}")
        config = tables.override(config, section, name, parsed, "--sweep")
    return config


def _path_part(text: str) -> str:
    """Make text safe for a file name. Changed text gets a hash, to stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:60]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Arm:
    """Settings in which the runs of a study differ, besides the seed.

    Attributes:
        norm: of the model.
        field: the swept setting as `section.name`, or several joined by `+`; empty without a
            sweep.
        value: of that setting; None without a sweep.
    """

    norm: str
    field: str = ""
    value: Value | None = None

    @property
    def directory(self) -> str:
        """Name of its directory in the study's: `batch`, or `batch-learning_rate-0.05`."""
        if self.value is None:
            return self.norm
        values = "_".join(_path_part(text) for _, text in parts(self.field, self.value))
        return f"{self.norm}-{_last_names(self.field)}-{values}"

    @property
    def label(self) -> str:
        """Name in text: `batch`, or `batch, learning rate 0.05`."""
        if self.value is None:
            return self.norm
        found = parts(self.field, self.value)
        return ", ".join([self.norm, *(f"{setting_name(field)} {text}" for field, text in found)])

    def config(self, config: Config, seed: int) -> Config:
        """Return the config of one of its runs, given the study's."""
        if self.value is not None:
            config = set_values(config, self.field, self.value)
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, norm=self.norm),
            training=dataclasses.replace(config.training, seed=seed),
            study=StudyConfig(),
        )


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
        return _last_names(self.field)

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
        on = [f"{_one_name(field)} {text}" for field, text in found if text not in OFF]
        return ", ".join(on) or "none of them"

    def at(self, value: Value) -> str:
        """Return setting and value in text: "learning rate 0.05"."""
        found = parts(self.field, value)
        if not self._switches:
            return ", ".join(f"{_one_name(field)} {text}" for field, text in found)
        if all(text in OFF for _, text in found):
            return f"none of {setting_name(self.field)}"
        return self.value_name(value)


def ordered(values: Sequence[Value]) -> tuple[Value, ...]:
    """Return the different values, numbers by size and others in the given order."""
    unique = tuple(dict.fromkeys(values))
    numbers = all(type(value) in (int, float) for value in unique)
    return tuple(sorted(unique)) if numbers else unique


def parse_arms(config: Config) -> tuple[str, ...]:
    """Return the norms of a study.

    Raises:
        UserError: a norm is unknown or named twice.
    """
    arms = tuple(arm.strip() for arm in config.study.arms.split(","))
    for arm in arms:
        if arm not in NORMS:
            raise UserError(f"--arms: {arm!r} is not known; allowed: {', '.join(NORMS)}")
    if len(set(arms)) < len(arms):
        raise UserError(f"--arms {config.study.arms}: an arm is named twice")
    return arms


def _all_fields() -> list[str]:
    """Return `section.name` of every field of a run."""
    return [
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        if section != "study"
        for field in dataclasses.fields(kind)
    ]


def arm_of(directory: str, config: Config) -> Arm | None:
    """Return the arm of a run from the name of its folder and its config. None if they disagree."""
    norm = config.model.norm
    if directory == norm:
        return Arm(norm)
    known = {_last_names(field): field for field in _all_fields()}
    fields: list[str] = []
    for name in directory.removeprefix(f"{norm}-").split("-"):
        if name not in known:
            return None
        fields.append(known[name])
        sections = [field.split(".") for field in fields]
        values = [getattr(getattr(config, section), field) for section, field in sections]
        value = values[0] if len(values) == 1 else ":".join(map(value_text, values))
        arm = Arm(norm, "+".join(fields), value)
        if arm.directory == directory:
            return arm
    return None


def _swept_field(name: str) -> str:
    """Return `section.name` of a field given with or without its section."""
    fields = _all_fields()
    found = [field for field in fields if name in (field, field.split(".")[1])]
    if not found:
        raise tables.unknown(name, [f.split(".")[1] for f in fields], "--sweep")
    if len(found) > 1:
        raise UserError(f"--sweep: {name!r} may be {' or '.join(found)}; write one of these")
    if found[0] in FIXED:
        why = "; norms are compared by --arms" if found[0] == "model.norm" else ""
        raise UserError(f"--sweep: {name!r} is the same in all runs of a study{why}")
    return found[0]


def _parse_values(field: str, text: str) -> Value:
    """Parse a value of a sweep. Values of several fields become one text."""
    fields = field.split("+")
    texts = text.split(":") if len(fields) > 1 else [text]
    if len(texts) != len(fields):
        raise UserError(
            f"--sweep {_last_names(field).replace('-', '+')}: {shown(text.strip())} must be "
            f"{len(fields)} values joined by ':'"
        )
    values: list[Value] = []
    for one, part in zip(fields, texts, strict=True):
        section, name = one.split(".")
        where = f"--sweep {name}"
        values.append(tables.parse_value(SECTIONS[section], name, part.strip(), where))
    return values[0] if len(values) == 1 else ":".join(map(value_text, values))


def parse_sweep(config: Config) -> Sweep | None:
    """Parse the sweep of a study, or return None.

    Its form is `learning_rate=0.01,0.05`, `training.learning_rate=...`, or
    `optimizer+learning_rate=sgd:0.01,adamw:0.001`.

    Raises:
        UserError: a field is unknown or cannot be swept, or a value is not allowed.
    """
    text = config.study.sweep
    if text is None:
        return None
    names, equals, listed = text.partition("=")
    if not equals:
        raise UserError(f"--sweep {text}: must be like learning_rate=0.01,0.05")
    fields = [_swept_field(name.strip()) for name in names.split("+")]
    if len(set(fields)) < len(fields):
        raise UserError(f"--sweep {text}: a setting is named twice")
    field = "+".join(fields)
    values = [_parse_values(field, value) for value in listed.split(",")]
    if len(set(values)) < len(values):
        raise UserError(f"--sweep {text}: a value is named twice")
    return Sweep(field, ordered(values))


def grid(norms: Sequence[str], sweep: Sweep | None) -> list[Arm]:
    """Return all arms: value by value, and at each value every norm."""
    if sweep is None:
        return [Arm(norm) for norm in norms]
    return [Arm(norm, sweep.field, value) for value in sweep.values for norm in norms]
