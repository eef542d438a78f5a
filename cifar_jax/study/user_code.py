"""Errors in a user's file as one line, and its values as text."""

import dataclasses
import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cifar_jax.errors import UserError, one_line, shown


def user_error(error: BaseException, path: Path, what: str = "", function: Any = None) -> UserError:
    """Return an error with the line of the user's file that caused it.

    Args:
        error: raised by the file, or by a library that it called.
        path: of the file.
        what: was being done, for example "arm mish".
        function: was called; gives the line if no line of the file was reached.
    """
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return UserError(f"{path}:{error.lineno}: not valid Python: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"{path}:{lines[-1]}" if lines else place_of(function, path)
    if isinstance(error, UserError):
        said = str(error)
    elif isinstance(error, jax.errors.ConcretizationTypeError):
        said = "needs the value of a traced array, as `if` and float() do; use jnp.where"
    else:
        said = f"{type(error).__name__}: {one_line(error)}"
    return UserError(": ".join(part for part in (where, what, said) if part))


def _code_of(function: Any) -> Any:
    """Return the code of a function, a partial function or a callable object, or None."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not hasattr(function, "__wrapped__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004
    return getattr(inspect.unwrap(function), "__code__", None)


def place_of(function: Any, path: Path) -> str:
    """Return `path:line` of a function of the user's file, or the path for others."""
    code = _code_of(function)
    if code is None or code.co_filename != str(path):
        return str(path)
    return f"{path}:{code.co_firstlineno}"


def text_of(value: Any) -> str:
    """Return a field of an experiment in words: names of functions, changed fields of dataclasses.

    For example `CNN(norm='batch', activation=mish)`.
    """
    if isinstance(value, functools.partial):
        given = [
            *map(text_of, value.args),
            *(f"{k}={text_of(v)}" for k, v in value.keywords.items()),
        ]
        return f"{text_of(value.func)}({', '.join(given)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(_changed(value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(text_of, value))})"
    name: Callable[..., str] | str | None = getattr(value, "__qualname__", None)
    if name is None:
        name = getattr(value, "__name__", None)
    if isinstance(name, str):
        last = name.rpartition(".")[2]
        code = _code_of(value)
        return f"lambda in line {code.co_firstlineno}" if last == "<lambda>" else last
    return shown(value)


def _changed(value: Any) -> list[str]:
    """Return the fields of a dataclass that do not have their default value, as text."""
    found = []
    for field in dataclasses.fields(value):
        if field.name in ("parent", "name") or not field.repr:  # Flax's own
            continue
        given = getattr(value, field.name, None)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if given is not default and given != default:
            found.append(f"{field.name}={text_of(given)}")
    return found
