"""Fields of the settings: a default, a help text, limits and a flag."""

import dataclasses
from typing import Any, TypedDict, Unpack


class Fitted(int):
    """Default size that `sizes.fit_defaults` lowers for a small dataset."""


class _Limits(TypedDict, total=False):
    """What a setting allows, and its flag.

    Attributes:
        low, high: closed limits; open with `low_open` or `high_open`.
        choices: the allowed texts.
        flag: its name on the command line, if it is not the field's.
    """

    low: float
    high: float
    low_open: bool
    high_open: bool
    choices: tuple[str, ...]
    flag: str


def field(default: Any, help: str, **limits: Unpack[_Limits]) -> Any:
    """Make a dataclass field with its help text and limits."""
    unset = {"low": None, "high": None, "low_open": False, "high_open": False}
    metadata = {"help": help, "choices": None, "flag": None, **unset, **limits}
    return dataclasses.field(default=default, metadata=metadata)
