"""Files are whole or absent, and JSON is standard JSON."""

import json

import pytest

from cifar_jax.storage import json_lines, write_atomically, write_json


def test_json_has_null_for_nan_and_infinity(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1.5, float("nan")], "b": (float("inf"),)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5, None], "b": [None]}
    assert json_lines([{"x": float("-inf")}, {"x": 1}]) == '{"x": null}\n{"x": 1}\n'


def test_a_failed_write_keeps_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "1\n"
