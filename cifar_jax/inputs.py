"""Read and check files and names that this program did not write."""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from cifar_jax.errors import UserError

# Bytes. This program writes far less: `results.json` of 100,000 epochs has 30 MB.
LARGEST_JSON = 256 << 20
# Regular expression of a character, other than controls, line ends and lone surrogates.
LINE = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
# Regular expression of the name of an arm, which is also that of a directory.
ARM = "[A-Za-z0-9][A-Za-z0-9_]{0,63}"


def read_bytes(path: str | Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes. Never wait for a pipe or a device.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger.
        ValueError: the path is not valid: it contains a null byte.
    """
    # Without O_NONBLOCK, opening a pipe waits for its other end.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_json(path: str | Path, most: int = LARGEST_JSON) -> Any:
    """Read standard JSON, without NaN and infinity.

    Raises:
        OSError: see `read_bytes`.
        ValueError: it is not UTF-8 or not JSON, or is nested too deeply.
    """
    try:
        return json.loads(read_bytes(path, most).decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def expand_home(path: str | Path, what: str) -> Path:
    """Return `path` with its leading `~` or `~user` replaced.

    Args:
        path: to expand.
        what: begins the error message, such as a flag.

    Raises:
        UserError: there is no such user or home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{what} {path}: the home directory is not known") from None


def is_name(value: Any) -> bool:
    """Return whether a value is one line of 1 to 1000 characters, without control characters."""
    return type(value) is str and bool(re.fullmatch(f"{LINE}{{1,1000}}", value))


def is_part(value: Any) -> bool:
    """Return whether a value is the name of a file or folder: a path of one part, not `..`."""
    return is_name(value) and value not in (".", "..") and "/" not in value and "\\" not in value
