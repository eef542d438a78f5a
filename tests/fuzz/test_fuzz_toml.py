"""Any file for --config is accepted, or is an error of one line that names it."""

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from fuzzing import damaged, edits, fuzz, run, texts
from hypothesis import event
from hypothesis import strategies as st

from cifar_jax.config import tables
from cifar_jax.config.settings import Config

pytestmark = pytest.mark.usefixtures("place")

ROOT = Path(__file__).parents[2]
SHIPPED = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.toml"))]
TABLES = {"name": "x", **tables.to_dict(Config())}


def _writable(value: Any) -> Any:
    """Draw plain data that TOML can represent."""
    if isinstance(value, dict):
        rows = {str(k).encode("utf-8", "replace").decode(): _writable(v) for k, v in value.items()}
        return {k: v for k, v in rows.items() if v is not None}
    if isinstance(value, list):
        return [v for v in map(_writable, value) if v is not None]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if type(value) is int and abs(value) > 10**300:
        return 10**300
    return value


def check(place: Path, content: bytes) -> int:
    path = place / "given.toml"
    path.write_bytes(content)
    try:
        status, said = run(["study", "--config", str(path)], place)
    finally:
        path.unlink()
    event(f"status {status}")
    if status:
        assert "given.toml" in said or "--" in said
    return status


def other_bytes(place: Path, content: bytes) -> None:
    check(place, content)


def other_values(place: Path, tables: Any) -> None:
    if isinstance(tables, dict):
        check(place, tomli_w.dumps(_writable(tables)).encode())


def any_toml(place: Path, lines: list[str]) -> None:
    check(place, "\n".join(lines).encode("utf-8", "replace"))


_KEYS = st.sampled_from(
    ["epochs", "training", "training.epochs", "data.dataset", "[training]", "name", "a.b.c", '"é"']
) | texts.map(lambda t: '"' + t.replace("\\", "").replace('"', "") + '"')
_VALUES = st.one_of(
    st.sampled_from(
        ["1", "1.5", "nan", "-inf", "0x" + "f" * 400, "9" * 5000, "true", "'''", '"\\u0000"']
    ),
    st.sampled_from(["[" * 500 + "]" * 500, "{a=" * 300 + "1" + "}" * 300, "[1, 'a', []]", "{}"]),
    st.datetimes().map(datetime.datetime.isoformat),
    st.times().map(str),
    texts,
)
_LINES = st.one_of(
    st.builds("{} = {}".format, _KEYS, _VALUES),
    st.builds("[{}]".format, _KEYS),
    st.builds("[[{}]]".format, _KEYS),
    st.sampled_from(
        ["[training]", "[data]", "[model]", "[study]", "epochs = 1", "# c\x07", "\ufeff"]
    ),
    st.just("[" + ".".join("a" * 2000) + "]"),
)

test_other_bytes, test_other_bytes_long = fuzz(
    other_bytes, quick=60, long=1500, content=st.sampled_from(SHIPPED).flatmap(damaged)
)
test_other_values, test_other_values_long = fuzz(
    other_values, quick=60, long=1500, tables=edits(TABLES)
)
test_any_toml, test_any_toml_long = fuzz(
    any_toml, quick=40, long=1000, lines=st.lists(_LINES, max_size=6)
)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop", "large", "absent"])
def test_other_than_a_regular_file_is_an_error_at_once(place: Path, kind: str) -> None:
    path = place / "odd.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    try:
        status, said = run(["--config", str(path)], place)
    finally:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    assert status == 2
    assert "--config" in said
    assert "odd.toml" in said
