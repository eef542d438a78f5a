"""Write result files atomically."""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from cifar_jax.errors import UserError
from cifar_jax.storage import WRITING, naming, seal, sync


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file in the same directory, and rename it when it is on the disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{WRITING}{path.name}-")
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync(path.parent)


def check_inside(path: Path, root: Path) -> None:
    """Check that a report's file is in the study's directory.

    Raises:
        UserError: `path` is a link out of `root`.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path}: is a link out of {root}; the report is written only there")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def strict(value: Any) -> Any:
    """Copy plain data, with None for the numbers that JSON lacks (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write standard JSON atomically; NaN and infinity become null."""
    write_text(path, json.dumps(strict(value), indent=2, allow_nan=False) + "\n")


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object with its digest, see `storage.seal`."""
    write_json(path, seal(strict(record)))


def json_lines(rows: Iterable[Any]) -> str:
    """Return one line of JSON a row."""
    return "".join(json.dumps(strict(row), allow_nan=False) + "\n" for row in rows)
