"""The one exception that a user is meant to see, and text that is safe to show."""

import unicodedata
from typing import Any

_LONGEST_LINE = 1500
_LONGEST_VALUE = 80


def printable(text: str) -> str:
    r"""`text` on one line, with nothing in it that a terminal or page would obey.

    Control characters (ANSI escapes, line ends), characters that turn the direction of writing and
    bytes that are no text become escapes such as `\x1b`; all else stays.
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
    """What a library's error says, at most 200 characters; its type where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[-most // 3 :]}"


def shown(value: Any) -> str:
    """`repr` for messages: of what was given, however large or deeply nested, 80 characters."""
    if type(value) is int and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    try:
        return _shorten(repr(value), _LONGEST_VALUE)
    except (RecursionError, ValueError):  # too deep; an integer in it that is too long to print
        return f"a {type(value).__name__}"


def counted(n: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `1 class`, `1,000 classes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural if n != 1 else ''}"


class UserError(Exception):
    """Input, file or environment that the user can mend.

    The message is one line: what was wrong, where, and what is allowed. The command line
    prints it without a traceback and exits with status 2. Paths and names may go into it as they
    are: `str` of the error escapes what is not printable.

    Attributes:
        status: exit status of the command.
    """

    status = 2

    def __str__(self) -> str:
        return _shorten(printable(super().__str__()), _LONGEST_LINE)


class MachineError(UserError):
    """Good input that the machine cannot serve: a full disk, a vanished directory, no memory."""

    status = 1
