"""Strict command line parser: each setting once, each error in one line."""

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import is_name


class Parser(argparse.ArgumentParser):
    """argparse's parser without abbreviations. A setting given twice is an error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a command line, without the program's name.

        Raises:
            UserError: an option is unknown, wrong or given twice.
        """
        joined = self._join_values(args)
        self._check_repeats(joined)
        return super().parse_args(joined, namespace)

    def _join_values(self, args: Sequence[str]) -> list[str]:
        """Turn `--lr -1e-3` into `--lr=-1e-3`: argparse takes the value for an option."""
        joined: list[str] = []
        for text in args:
            action = self._option_string_actions.get(joined[-1]) if joined else None
            dashed = text.startswith("-") and not text.startswith("--")
            if action and action.nargs != 0 and dashed and text not in self._option_string_actions:
                joined[-1] += f"={text}"
            else:
                joined.append(text)
        return joined

    def _check_repeats(self, args: Sequence[str]) -> None:
        first: dict[str, str] = {}
        for text in args:
            if text == "--":
                break
            option = text.partition("=")[0]
            action = self._option_string_actions.get(option)
            if action is None or option in ("-h", "--help"):
                continue
            if isinstance(action, argparse._AppendAction):
                continue
            if first.get(action.dest) == option:
                raise UserError(f"{option}: is given twice; give it once")
            if action.dest in first:
                raise UserError(
                    f"{first[action.dest]} and {option}: are the same setting; give one of them"
                )
            first[action.dest] = option

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Before Python 3.13 argparse drops the value of `--dataset=--`.
        if arg_strings == ["--"] and action.option_strings and action.nargs is None:
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)


def path_of(flag: str) -> Callable[[str], Path]:
    """Return a converter of a flag's text to a path that the file system accepts."""

    def convert(text: str) -> Path:
        if not is_name(text):
            raise UserError(
                f"{flag}: {shown(text)} is not a path; allowed: printable text, not empty"
            )
        try:
            os.stat(text)
        except FileNotFoundError:
            pass  # The command decides whether it must exist.
        except OSError as error:
            raise UserError(f"{flag} {text}: cannot be used ({error.strerror})") from None
        return Path(text)

    return convert


def name_of(flag: str) -> Callable[[str], str]:
    """Return a converter of a flag's text to a name."""

    def convert(text: str) -> str:
        if not is_name(text):
            raise UserError(f"{flag}: {shown(text)} is not a name; allowed: printable text")
        return text

    return convert


def threads(text: str) -> int:
    """Turn `--threads` into a number."""
    if not re.fullmatch("0*[1-9][0-9]{0,2}", text):
        raise UserError(f"--threads: {shown(text)} is not a number from 1 to 999")
    return int(text)


def seconds(flag: str) -> Callable[[str], float]:
    """Return a converter of a flag's text to seconds."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 86_400:
            raise UserError(f"{flag}: {shown(text)} is not a number of seconds from 0 to 86400")
        return value

    return convert


def above_zero(flag: str) -> Callable[[str], float]:
    """Return a converter of a flag's text to a number above 0."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UserError(f"{flag}: {shown(text)} is not a number above 0")
        return value

    return convert


def count_of(flag: str) -> Callable[[str], int]:
    """Return a converter of a flag's text to a number of things, at least 1."""

    def convert(text: str) -> int:
        if not re.fullmatch("0*[1-9][0-9]{0,8}", text, re.ASCII):
            raise UserError(f"{flag}: {shown(text)} is not a whole number from 1 to 999999999")
        return int(text)

    return convert


def picture(text: str) -> str:
    """Check the name of a picture: a file, a folder, or "-" for standard input."""
    if re.match("[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise UserError(
            f"IMAGE {shown(text)}: addresses are not fetched; download the image, and give its "
            "file, or - to read it from a pipe"
        )
    return text


def number_of(flag: str) -> Callable[[str], int]:
    """Return a converter of a flag's text to a number that counts from 0."""

    def convert(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text, re.ASCII):
            raise UserError(f"{flag}: {shown(text)} is not a whole number from 0 to 999999999")
        return int(text)

    return convert


def address_of(flag: str) -> Callable[[str], str]:
    """Return a converter of a flag's text to an address, HOST:PORT."""

    def convert(text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}", text):
            raise UserError(f"{flag}: {shown(text)} is not HOST:PORT, such as node1:9876")
        return text

    return convert


def share_of(flag: str) -> Callable[[str], tuple[int, int]]:
    """Return a converter of a flag's text I/N to the two numbers, I below N."""

    def convert(text: str) -> tuple[int, int]:
        found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
        if not found or int(found[1]) >= int(found[2]):
            raise UserError(f"{flag}: {shown(text)} is not I/N with I from 0 to N - 1, such as 0/4")
        return int(found[1]), int(found[2])

    return convert
