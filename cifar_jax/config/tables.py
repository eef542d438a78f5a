"""Settings as TOML, as plain tables and as text: reading, validation and writing."""

import dataclasses
import difflib
import functools
import math
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from cifar_jax.config.fields import Fitted
from cifar_jax.config.settings import SECTIONS, Config, is_free
from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import is_name, read_bytes

LARGEST_FILE = 64 << 10  # bytes; a config has about 1,000


@functools.cache
def field_type(section: type, name: str) -> tuple[type, bool]:
    """Return the plain type of a field, and whether it may be None (`T | None`)."""
    hint = typing.get_type_hints(section)[name]
    if isinstance(hint, types.UnionType):
        (plain,) = [a for a in typing.get_args(hint) if a is not type(None)]
        return plain, True
    return hint, False


def _limits(meta: Any) -> str:
    low, high = meta["low"], meta["high"]
    parts = []
    if low is not None:
        parts.append(f"{'above' if meta['low_open'] else 'at least'} {low:g}")
    if high is not None:
        upper = high if isinstance(high, int) else f"{high:g}"
        parts.append(f"{'below' if meta['high_open'] else 'at most'} {upper}")
    return " and ".join(parts)


def check_value(section: type, name: str, value: Any, where: str) -> Any:
    """Check one value against its field's type, limits and choices.

    Args:
        section: the dataclass that owns the field.
        name: the field.
        value: from TOML or the command line.
        where: name of the value in messages, for example `--epochs` or `a.toml: data.dataset`.

    Returns:
        The value. A float field's int becomes a float.

    Raises:
        UserError: the value is not allowed.
    """
    plain, optional = field_type(section, name)
    meta = section.__dataclass_fields__[name].metadata  # type: ignore[attr-defined]
    if value is None and optional:
        return None
    if plain is float and type(value) is int:
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not plain:
        kind = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise UserError(f"{where}: {shown(value)} is not {kind[plain]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is not a finite number; allowed: {_limits(meta)}")
    if meta["choices"] and value not in meta["choices"]:
        allowed = ", ".join(meta["choices"])
        raise UserError(f"{where}: {shown(value)} is not known; allowed: {allowed}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = meta["low"], meta["high"]
        too_low = low is not None and (value <= low if meta["low_open"] else value < low)
        too_high = high is not None and (value >= high if meta["high_open"] else value > high)
        if too_low or too_high:
            raise UserError(f"{where}: {shown(value)} is out of range; allowed: {_limits(meta)}")
    if isinstance(value, str) and not is_name(value):
        raise UserError(
            f"{where}: an empty or unprintable string is not allowed, nor one of more than 1000 "
            f"characters: {shown(value)}"
        )
    return value


def parse_value(section: type, name: str, text: str, where: str) -> Any:
    """Parse a field's value from the text of a flag or list, and check it by `check_value`."""
    plain, _ = field_type(section, name)
    kinds = {int: "an integer", float: "a number"}
    value: Any = text
    if plain in kinds:
        try:
            value = plain(text)
        except ValueError:
            raise UserError(f"{where}: {shown(text)} is not {kinds[plain]}") from None
    elif plain is bool:
        value = {"true": True, "false": False}.get(text, text)
    return check_value(section, name, value, where)


def _check_name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|", value):
        raise UserError(
            f"{where}: {shown(value)} is not allowed; up to 64 letters, digits, '.', '_' and '-'"
        )
    return value


def unknown(key: str, known: list[str], where: str) -> UserError:
    """Return the error for an unknown key, with the known key most like it."""
    near = difflib.get_close_matches(key.rpartition(".")[2][:100], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"{where}: unknown key {shown(key)}{hint} (allowed: {', '.join(known)})")


def from_dict(tables: Any, where: str) -> Config:
    """Build a validated `Config` from nested tables.

    Args:
        tables: as `tomllib` returns them; absent keys keep the protocol's defaults.
        where: name of the source in messages.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of range.
    """
    if not isinstance(tables, dict):
        raise UserError(f"{where}: {shown(tables)} is not a configuration")
    sections: dict[str, Any] = {}
    for key, table in tables.items():
        if key == "name":
            sections["name"] = _check_name(table, f"{where}: name")
            continue
        if key not in SECTIONS:
            raise unknown(key, ["name", *SECTIONS], where)
        if not isinstance(table, dict):
            raise UserError(f"{where}: {key!r} must be a table, [{key}]")
        fields = [f.name for f in dataclasses.fields(SECTIONS[key])]
        for name in table:
            if name not in fields:
                raise unknown(f"{key}.{name}", fields, where)
        values = {
            name: check_value(SECTIONS[key], name, value, f"{where}: {key}.{name}")
            for name, value in table.items()
        }
        sections[key] = SECTIONS[key](**values)
    return Config(**sections)


def load(path: str | Path) -> Config:
    """Read and validate a TOML config file.

    Raises:
        UserError: the file cannot be read, is not TOML, or has a setting that is not allowed.
    """
    path = Path(path)
    try:
        text = read_bytes(path, LARGEST_FILE).decode("utf-8-sig")  # With or without a BOM.
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "not UTF-8 text; save it as UTF-8"
        )
        raise UserError(f"--config {path}: cannot be read ({reason})") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError:  # Python's limit of 4300 digits
        raise UserError(f"{path}: not valid TOML: a number with too many digits") from None
    return from_dict(tables, str(path))


def override(config: Config, section: str, name: str, value: Any, where: str) -> Config:
    """Return a copy of `config` with one field replaced, after validation."""
    checked = check_value(SECTIONS[section], name, value, where)
    table = dataclasses.replace(getattr(config, section), **{name: checked})
    return dataclasses.replace(config, **{section: table})


def to_dict(config: Config) -> dict[str, Any]:
    """Return nested plain tables for TOML.

    TOML has no null, so fields that are None are absent. So are the tables `[study]`, `[transfer]`
    and `[experiment]` if all their fields have default values. With an experiment file, settings
    that the file defines are absent.
    """
    # `asdict` copies each value, which takes ten times as long.
    tables: dict[str, Any] = {name: dict(vars(getattr(config, name))) for name in SECTIONS}
    for section in ("study", "transfer", "experiment"):
        if getattr(config, section) == SECTIONS[section]():
            del tables[section]
    written: dict[str, Any] = {"name": config.name} if config.name else {}
    of_file = config.experiment.file is not None
    for section, table in tables.items():
        plain = {k: int(v) if isinstance(v, Fitted) else v for k, v in table.items()}
        written[section] = {
            k: v
            for k, v in plain.items()
            if v is not None and (not of_file or is_free(f"{section}.{k}"))
        }
    return written


def to_toml(config: Config) -> str:
    """Return TOML text that `load` reads back to an equal `Config`."""
    import tomli_w

    return tomli_w.dumps(to_dict(config))
