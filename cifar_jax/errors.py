"""Errors for the user, and text that is safe to print."""

import unicodedata
from collections.abc import Sequence
from typing import Any

_LONGEST_LINE = 1500
_LONGEST_VALUE = 80


def printable(text: str) -> str:
    r"""Return `text` on one line, without control characters.

    Control characters (ANSI escapes, line ends), changes of writing direction and undecodable
    bytes become escapes such as `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
        else c
        for c in text
    )


def one_line(error: BaseException) -> str:
    """Return the first 200 characters of an error's message on one line, or else its type."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[-most // 3 :]}"


def shown(value: Any) -> str:
    """Return `repr(value)` in at most about 80 characters, however large or deeply nested."""
    if type(value) is int and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    try:
        return _shorten(repr(value), _LONGEST_VALUE)
    except (RecursionError, ValueError):  # too deep, or contains an integer too long to print
        return f"a {type(value).__name__}"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: `1 epoch`, `2 epochs`, `1 class`, `1,000 classes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural if n != 1 else ''}"


def listed(words: Sequence[str]) -> str:
    """Join words: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


class UserError(Exception):
    """Wrong input, file or environment that the user can correct.

    The message is one line: what was wrong, where, and what is allowed. The command line
    prints it without a traceback and exits with status 2. `str` of the error escapes unprintable
    characters of paths and names.

    Attributes:
        status: exit status of the command.
    """

    status = 2

    def __str__(self) -> str:
        return _shorten(printable(super().__str__()), _LONGEST_LINE)


class MachineError(UserError):
    """Lack of a resource, despite correct input: full disk, removed directory, no memory."""

    status = 1


class InputError(UserError, ValueError):
    """A wrong argument of a library function."""
