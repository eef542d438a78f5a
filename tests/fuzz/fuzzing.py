"""Make two tests of a property: a short one, and a long one for `make test-faults`."""

import contextlib
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import counts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_jax import main as door


class Accepted(BaseException):
    """Raised instead of the work, for good input."""


def fuzz(body: Callable[..., None], *, quick: int, long: int, **inputs: Any) -> tuple[Any, Any]:
    """Return the short and the long test of a property, with the same inputs in every run.

    Args:
        body: takes `inputs` by name, and fixtures.
        quick: examples of the short test.
        long: examples of the long one.
        **inputs: strategies.
    """

    @functools.wraps(body)
    def counted(*args: Any, **kwargs: Any) -> None:
        counts["generated inputs"] += 1
        body(*args, **kwargs)

    def test(examples: int) -> Any:
        limits = settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        return limits(given(**inputs)(counted))

    return test(quick), pytest.mark.faults_long(test(long))


def run(argv: list[str], root: Path) -> tuple[int, str]:
    """Run a command line whose work is replaced by `Accepted`, and check the common rules.

    Args:
        argv: the command line.
        root: the working directory, which an error must not change.

    Returns:
        Exit status, 0 for accepted input, and standard error.
    """
    before = listing(root)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = door.main(argv)
        except Accepted:
            status = 0
        except SystemExit as stop:  # of --help and --version
            status = int(stop.code or 0)
            assert status == 0
    said = errors.getvalue()
    if status:
        assert status == 2, said
        assert is_one_line(said), said
        assert said.startswith("cifar_jax: error: ")
        assert listing(root) == before
    else:
        assert said == ""
    return status, said


def is_one_line(said: str) -> bool:
    """Return whether text is one printable line of limited length."""
    return said.endswith("\n") and len(said) < 1700 and harmless(said[:-1])


def harmless(text: str) -> bool:
    """Return whether text has no control, direction or undefined characters."""
    return all(
        c.isprintable() or (c.isspace() and c not in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
        for c in text
    )


def listing(root: Path) -> list[str]:
    """All names under a directory."""
    return sorted(os.path.join(d, n) for d, ds, fs in os.walk(root) for n in (*ds, *fs))


# Texts that tend to break parsers and terminals, in addition to Hypothesis's.
NASTY = (
    "",
    "\0",
    "\x1b[31m",
    "\x1b]0;title\x07",
    "a\nb",
    "a\r\nb",
    "\u202egnp.exe",
    "\udcff",
    "..",
    "../../etc/passwd",
    "~nobody-here",
    "/dev/zero",
    "$\\frac$",
    "{{ 7*7 }}",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "%s%n%d",
    "é" * 300,
    "x" * 5000,
    "-1",
    "--",
    "nan",
    "1e400",
    "9" * 5000,
    "\N{PILE OF POO}",
    "²",
    "true",
    "[[a]]",
    "a=b",
)
texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=30),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "So", "L"]), max_size=8),
)
scalars = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([10**400, -1, 0, 2**53, 1e308, 5e-324]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all parts of plain data, the whole first."""
    found = [path]
    if isinstance(value, dict):
        found += [p for k, v in value.items() for p in places(v, (*path, k))]
    elif isinstance(value, list):
        # Of a long list the ends are enough.
        ends = range(len(value)) if len(value) < 4 else (0, 1, len(value) - 1)
        found += [p for i in ends for p in places(value[i], (*path, i))]
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Copy plain data with one part replaced. `KeyError` as `new` removes it."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is KeyError and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@st.composite
def edits(draw: Any, value: Any, most: int = 3) -> Any:
    """Draw plain data with a few parts removed or replaced, mostly by odd values."""
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(places(value)))
        value = replaced(value, path, draw(st.just(KeyError) | values if path else values))
    return value


@st.composite
def damaged(draw: Any, content: bytes, most: int = 6) -> bytes:
    """Draw bytes with a few of them changed, removed, repeated or added."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(found)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(found):
                found[at] = draw(st.integers(0, 255))
            case 1:
                del found[at : at + draw(st.integers(1, 64))]
            case 2:
                found[at:at] = draw(st.binary(min_size=1, max_size=16))
            case 3:
                found[at:at] = found[at : at + draw(st.integers(1, 64))]
            case _:
                if draw(st.integers(0, 9)) == 0:
                    del found[at:]
                elif at < len(found):
                    found[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(found)
