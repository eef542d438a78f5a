"""Recognise errors of the machine: disk, directories, permissions, memory."""

import errno
import re
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
_NO_LIBRARY = re.compile("failed to map segment|cannot allocate memory", re.IGNORECASE)
_LESS_MEMORY = "lower --batch-size or --seed-parallelism, or use --pipeline stream"


def is_lack(error: BaseException) -> bool:
    """Return whether memory or open files ran out, so that the file being read may be sound."""
    files = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    return files or _is_memory(error)


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, ImportError):
        return bool(_NO_LIBRARY.search(str(error)))
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError)


def _limit() -> str:
    """Return the shell's memory limit in words, or ""."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" (this shell allows {limit / 2**20:,.0f} MiB, ulimit -v)"


def line(error: BaseException) -> str | None:
    """Describe an error of the machine in one line. Return None for a bug of the program.

    The line repeats the error's words. For memory, it names the settings to lower.
    """
    if _is_memory(error):
        return f"out of memory on the host{_limit()}; {_LESS_MEMORY}"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return f"no more threads can be started{_limit()}; raise the limit of processes (ulimit -u)"
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
