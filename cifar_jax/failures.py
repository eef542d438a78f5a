"""What the machine lacks: disk, directories, permission, memory."""

import errno
import sys

FULL = (errno.ENOSPC, errno.EDQUOT)
_ENVIRONMENT = (
    *FULL,
    errno.EACCES,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
)
_LESS_MEMORY = "lower --batch-size or --seed-parallelism, or use --pipeline stream"


def line(error: BaseException) -> str | None:
    """What the machine lacks, in one line, or None where the program itself is to blame.

    Of disks, directories and limits the error's own words; of memory, the settings to lower.
    """
    if isinstance(error, MemoryError):
        return f"out of memory on the host; {_LESS_MEMORY}"
    if isinstance(error, OSError):
        if error.errno not in _ENVIRONMENT:
            return None
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    jax = sys.modules.get("jax")
    if jax and isinstance(error, jax.errors.JaxRuntimeError):
        first = (str(error).splitlines() or [""])[0]
        if "RESOURCE_EXHAUSTED" in first or "out of memory" in first.lower():
            return f"out of memory on the device ({first[:160]}); {_LESS_MEMORY}"
    return None
