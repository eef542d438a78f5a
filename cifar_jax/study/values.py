"""Values of settings: their text, and their place in a config.

A setting is `section.name`, or several joined by `+`; its value is then texts joined by `:`. The
section `hyper` has the hyper-parameters that an experiment file adds.
"""

import math
import re

from cifar_jax.config import tables
from cifar_jax.config.settings import (
    SECTIONS,
    Config,
)
from cifar_jax.errors import UserError, shown

Value = bool | int | float | str

HYPER = "hyper."  # prefix of the hyper-parameters that an experiment file adds
HYPER_NAME = re.compile(r"[A-Za-z]\w{0,50}", re.ASCII)


def setting_name(field: str) -> str:
    """Return the name of a setting in text: `training.learning_rate` is "learning rate"."""
    *firsts, last = map(one_name, field.split("+"))
    return f"{', '.join(firsts)} and {last}" if firsts else last


def one_name(field: str) -> str:
    section, name = field.split(".")
    return section if name == "name" else name.replace("_", " ")


def last_names(field: str) -> str:
    """Return the name of a setting in file names."""
    return "-".join(one_name(part).replace(" ", "_") for part in field.split("+"))


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
        if field.startswith(HYPER):
            return _set_hyper(config, name, value)
        return tables.override(config, section, name, value, "--sweep")
    for one, text in parts(field, value):
        config = set_values(config, one, parse_value(one, text))
    return config


def parse_hyper(text: str | None) -> dict[str, float]:
    """Parse `experiment.hyper`, such as "gamma=2.0,scale=1.0".

    Raises:
        UserError: the text has another form.
    """
    found: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, value = part.partition("=")
        if not HYPER_NAME.fullmatch(name):
            raise UserError(f"experiment.hyper: {shown(part)} must be like gamma=2.0")
        found[name] = float(parse_value(HYPER + name, value))
    return found


def _set_hyper(config: Config, name: str, value: Value) -> Config:
    """Set a hyper-parameter that the experiment file adds."""
    values = {**parse_hyper(config.experiment.hyper), name: float(value)}
    text = ",".join(f"{key}={number}" for key, number in values.items())
    return tables.override(config, "experiment", "hyper", text, "--sweep")


def parse_value(field: str, text: str) -> Value:
    """Parse the value of one field, and check it."""
    section, name = field.split(".")
    where = f"--sweep {name}"
    if field.startswith(HYPER):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{where}: {shown(text)} is not a finite number")
        return number
    value: Value = tables.parse_value(SECTIONS[section], name, text, where)
    return value
