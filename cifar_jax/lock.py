"""Lock a directory, so that only one process writes in it."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_jax.errors import UserError
from cifar_jax.inputs import read_bytes
from cifar_jax.names import LOCK
from cifar_jax.storage import name_in_errors, remove_unfinished

# A process that ends removes the lock file. One that waits for that file must try again.
_SECONDS = 0.1
# Errors of a file system without locks. There, the user must keep a directory to one process.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def _owner(what: str) -> str:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} ({what}), since {since}"


@contextlib.contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Lock a directory against other processes, and remove unfinished files in it.

    The lock is the file `lock`, which names the process. The kernel releases the lock when the
    process ends, even if it is killed. On a file system without locks, nothing is locked.

    Args:
        directory: to write in.
        what: the command, for the message to other processes.

    Raises:
        UserError: another process has the lock; the message names it.
        OSError: the file cannot be made.
    """
    path = directory / LOCK

    def write_owner(handle: int) -> None:
        with name_in_errors(path):
            os.ftruncate(handle, 0)
            os.write(handle, f"{_owner(what)}\n".encode())

    lock = FileLock(path, _SECONDS, fallback_to_soft=False, on_acquired=write_owner)
    try:
        lock.acquire()
    except Timeout:
        owner = ""
        with contextlib.suppress(OSError):
            owner = read_bytes(path, 500).decode(errors="replace").strip()
        raise UserError(
            f"{directory}: in use by {owner or 'another process'}; wait for it or stop it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        remove_unfinished(directory)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
