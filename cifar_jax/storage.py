"""Write files atomically and durably, with digests.

A file gets a temporary name, which begins with `WRITING`, until all of it is on the disk. Then it
is renamed, so that a reader sees all of the file or no file.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from cifar_jax.errors import UserError
from cifar_jax.inputs import read_json

WRITING = ".writing-"
_DIGEST = "sha256"


@contextlib.contextmanager
def name_in_errors(path: str | Path) -> Iterator[None]:
    """Add a path to an `OSError` that lacks one. Errors of an open file lack it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync(path: str | Path) -> None:
    """Flush a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(directory: Path, size: int) -> None:
    """Check that `size` bytes can be written in a directory.

    Raises:
        OSError: they cannot: the disk is full, read-only or removed.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(directory).free < size:  # macOS
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def remove(path: Path) -> None:
    """Remove a file or directory. Ignore errors."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_unfinished(directory: Path) -> None:
    """Remove the unfinished files of killed processes, in a directory and one level below it."""
    for pattern in (f"{WRITING}*", f"*/{WRITING}*"):
        for path in directory.glob(pattern):
            remove(path)


@contextlib.contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """Make a directory to write in, and remove it at the end.

    First remove those of killed processes in `parent`. Each process locks a file in its own. The
    kernel releases the lock when the process ends.
    """
    from filelock import FileLock

    def lock(directory: Path) -> FileLock:
        return FileLock(directory / ".lock", blocking=False, fallback_to_soft=False)

    for path in parent.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError), lock(path):
            shutil.rmtree(path, ignore_errors=True)
    made = Path(tempfile.mkdtemp(dir=parent, prefix=WRITING))
    own = lock(made)
    try:
        with contextlib.suppress(OSError):  # A file system without locks.
            own.acquire()
        yield made
    finally:
        own.release()
        shutil.rmtree(made, ignore_errors=True)


def sha256(path: str | Path, *, durable: bool = False) -> str:
    """Return the SHA-256 of a regular file in hex. Never wait for a pipe or device.

    Args:
        path: of the file.
        durable: also flush the file to the disk.

    Raises:
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if durable:
            os.fsync(handle)
    return digest


def _record_digest(record: dict[str, Any]) -> str:
    plain = {key: value for key, value in record.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its digest: `sha256`, of `json.dumps` with sorted keys.

    Args:
        record: plain data without NaN; keys are text.
    """
    plain = json.loads(json.dumps(record))
    return {**plain, _DIGEST: _record_digest(plain)}


def is_intact(record: Any) -> bool:
    """Return whether a JSON object has the digest in it. One without a digest counts as intact."""
    if not isinstance(record, dict):
        return False
    try:
        return _DIGEST not in record or record[_DIGEST] == _record_digest(record)
    except (RecursionError, ValueError):
        return False


def read_sealed(path: Path) -> Any:
    """Read a JSON file that may contain its digest.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or has another digest.
    """
    value = read_json(path)
    if not is_intact(value):
        raise ValueError("damaged: its content does not match its digest")
    return value


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file in the same directory, flush it to the disk, and rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{WRITING}{path.name}-")
    try:
        with name_in_errors(path), os.fdopen(handle, "wb") as file:
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


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def nan_to_none(value: Any) -> Any:
    """Return a copy of plain data with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write standard JSON atomically; NaN and infinity become null."""
    write_text(path, json.dumps(nan_to_none(value), indent=2, allow_nan=False) + "\n")


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object with its digest, see `seal`."""
    write_json(path, seal(nan_to_none(record)))


def json_lines(rows: Iterable[Any]) -> str:
    """Return one line of JSON for each row."""
    return "".join(json.dumps(nan_to_none(row), allow_nan=False) + "\n" for row in rows)


def check_inside(path: Path, root: Path) -> None:
    """Check that `path` is no link out of `root`, so that a report writes only in its study.

    Raises:
        UserError: it is such a link.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path}: is a link out of {root}; the report is written only there")
