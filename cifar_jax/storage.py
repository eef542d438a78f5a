"""Files that survive: durable writes, what killed writers left, and digests.

What is being written has a name that begins with `WRITING` and gets its own by a rename, so that
a reader sees a whole file or none.
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
    """Name a path in what the disk says of a file that is open: the error itself names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync(path: str | Path) -> None:
    """Have a file or directory reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(directory: Path, size: int) -> None:
    """Fail now rather than half-way where a directory has no room.

    Args:
        directory: to be written in.
        size: bytes to be written.

    Raises:
        OSError: as the disk says: it is full, read-only, gone, ...
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(directory).free < size:  # macOS
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def remove(path: Path) -> None:
    """Remove a file or directory, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_unfinished(directory: Path) -> None:
    """Remove what killed writers left in a directory and right below it."""
    for pattern in (f"{WRITING}*", f"*/{WRITING}*"):
        for left in directory.glob(pattern):
            remove(left)


@contextlib.contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """Make a directory to write in, and remove it at the end.

    Directories that killed processes left in `parent` go first. A file in each is locked by its
    writer; the kernel releases the lock when the process ends.
    """
    from filelock import FileLock

    def lock(directory: Path) -> FileLock:
        return FileLock(directory / ".lock", blocking=False, fallback_to_soft=False)

    for left in parent.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError), lock(left):
            shutil.rmtree(left, ignore_errors=True)
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
    """SHA-256 of a regular file in hex; a pipe or device is not waited for.

    Args:
        path: of the file.
        durable: also have it reach the disk.

    Raises:
        OSError: if it cannot be read.
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
    """A JSON object with the digest of all that it holds: `sha256`, of `json.dumps` by sorted key.

    Args:
        record: what `json` gives back as it is: names are text, no NaN, lists for tuples.
    """
    plain = json.loads(json.dumps(record))
    return {**plain, _DIGEST: _record_digest(plain)}


def is_intact(record: Any) -> bool:
    """Whether a JSON object is as it was sealed. One that never was is taken as it is."""
    if not isinstance(record, dict):
        return False
    try:
        return _DIGEST not in record or record[_DIGEST] == _record_digest(record)
    except (RecursionError, ValueError):
        return False


def read_sealed(path: Path) -> Any:
    """Read a JSON file that may hold its digest.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not JSON or not what was written.
    """
    value = read_json(path)
    if not is_intact(value):
        raise ValueError("damaged: its content does not have the digest in it")
    return value


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file through a temporary one beside it, renamed when it has reached the disk."""
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
    """A copy of plain data in which numbers that JSON cannot hold (NaN, infinity) are None."""
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
    """One line of JSON a row."""
    return "".join(json.dumps(nan_to_none(row), allow_nan=False) + "\n" for row in rows)


def check_inside(path: Path, root: Path) -> None:
    """Refuse a link that would make a report write to another place than its study.

    Raises:
        UserError: name_in_errors the link.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path}: is a link out of {root}; the report is written only there")
