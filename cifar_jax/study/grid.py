"""Which runs a study consists of: norms, optionally crossed with one swept setting, by seeds.

An arm is a norm, or with a sweep a norm at one value of the setting. All runs of a seed are paired:
whatever the arm, they have the same split, initial values, order and augmentation, as far as the
setting leaves them alone.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_jax import config as configuration
from cifar_jax.config import NORMS, SECTIONS, Config, StudyConfig
from cifar_jax.errors import UserError

Value = bool | int | float | str

# What a study has once: its seeds are counted, its norms are the arms, its images are one set.
FIXED = (
    "training.seed",
    "model.norm",
    "model.num_classes",
    "data.dataset",
    "data.classes",
    "data.data_dir",
    "data.resize",
    "data.pipeline",
)


def setting_name(field: str) -> str:
    """What a setting is called in text: `training.learning_rate` is "learning rate"."""
    section, name = field.split(".")
    return section if name == "name" else name.replace("_", " ")


def setting_part(field: str) -> str:
    """What a setting is called in file names."""
    return setting_name(field).replace(" ", "_")


def value_text(value: Value) -> str:
    """A value as TOML has it: 0.05, 128, true."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _path_part(text: str) -> str:
    """Text that can be part of a file name; what had to be changed stays distinct by a hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:60]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Arm:
    """What differs between the runs of a study besides the seed.

    Attributes:
        norm: of the model.
        field: the swept setting as `section.name`; empty without a sweep.
        value: of that setting; None without a sweep.
    """

    norm: str
    field: str = ""
    value: Value | None = None

    @property
    def directory(self) -> str:
        """Where its runs lie in the study's: `batch`, or `batch-learning_rate-0.05`."""
        if self.value is None:
            return self.norm
        name = setting_part(self.field)
        return f"{self.norm}-{name}-{_path_part(value_text(self.value))}"

    @property
    def label(self) -> str:
        """For people: `batch`, or `batch, learning rate 0.05`."""
        if self.value is None:
            return self.norm
        return f"{self.norm}, {setting_name(self.field)} {value_text(self.value)}"

    def config(self, config: Config, seed: int) -> Config:
        """Config of one of its runs, given the study's."""
        if self.value is not None:
            section, name = self.field.split(".")
            config = configuration.override(config, section, name, self.value, "--sweep")
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, norm=self.norm),
            training=dataclasses.replace(config.training, seed=seed),
            study=StudyConfig(),
        )


@dataclass(frozen=True)
class Sweep:
    """A setting and the values that it takes.

    Attributes:
        field: `section.name`.
        values: numbers by size, others as given.
    """

    field: str
    values: tuple[Value, ...]


def ordered(values: Sequence[Value]) -> tuple[Value, ...]:
    """Different values, numbers by size and others as they come."""
    unique = tuple(dict.fromkeys(values))
    numbers = all(type(value) in (int, float) for value in unique)
    return tuple(sorted(unique)) if numbers else unique


def parse_arms(config: Config) -> tuple[str, ...]:
    """The norms of a study.

    Raises:
        UserError: if one is unknown or named twice.
    """
    arms = tuple(arm.strip() for arm in config.study.arms.split(","))
    for arm in arms:
        if arm not in NORMS:
            raise UserError(f"--arms: {arm!r} is not known; allowed: {', '.join(NORMS)}")
    if len(set(arms)) < len(arms):
        raise UserError(f"--arms {config.study.arms}: an arm is named twice")
    return arms


def _swept_field(name: str) -> str:
    """`section.name` of a field given as that or by its name alone."""
    fields = [
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        if section != "study"
        for field in dataclasses.fields(kind)
    ]
    found = [field for field in fields if name in (field, field.split(".")[1])]
    if not found:
        raise configuration.unknown(name, [f.split(".")[1] for f in fields], "--sweep")
    if len(found) > 1:
        raise UserError(f"--sweep: {name!r} may be {' or '.join(found)}; write which")
    if found[0] in FIXED:
        why = "; norms are compared by --arms" if found[0] == "model.norm" else ""
        raise UserError(f"--sweep: {name!r} is the same in all runs of a study{why}")
    return found[0]


def parse_sweep(config: Config) -> Sweep | None:
    """The sweep of a study, `learning_rate=0.01,0.05` or `training.learning_rate=...`, if any.

    Raises:
        UserError: if the field is unknown or not to be swept, or a value is not allowed.
    """
    text = config.study.sweep
    if text is None:
        return None
    name, equals, listed = text.partition("=")
    if not equals:
        raise UserError(f"--sweep {text}: must be like learning_rate=0.01,0.05")
    field = _swept_field(name.strip())
    section, name = field.split(".")
    where = f"--sweep {name}"
    values = [
        configuration.parse_value(SECTIONS[section], name, value.strip(), where)
        for value in listed.split(",")
    ]
    if len(set(values)) < len(values):
        raise UserError(f"--sweep {text}: a value is named twice")
    return Sweep(field, ordered(values))


def grid(norms: Sequence[str], sweep: Sweep | None) -> list[Arm]:
    """All arms: value by value, in each every norm."""
    if sweep is None:
        return [Arm(norm) for norm in norms]
    return [Arm(norm, sweep.field, value) for value in sweep.values for norm in norms]
