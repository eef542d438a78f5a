"""One writer a directory."""

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

# A holder that ends removes its file. A process that waits for that file then needs a second try.
_SECONDS = 0.1
# A file system without locks: two processes in one directory are then the user's business.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def _holder(what: str) -> str:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} ({what}), since {since}"


@contextlib.contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Be the only process that writes in a directory.

    The lock is the file `lock` in it, which names its holder. The kernel releases the lock when
    the process ends, however it ends, so the next process takes a dead process's lock. On a file
    system without locks, none is taken.

    Args:
        directory: to write in.
        what: the process is doing, for others to read.

    Raises:
        UserError: name_in_errors the holder, if another process has the lock.
        OSError: if the file cannot be made.
    """
    path = directory / LOCK

    def sign(handle: int) -> None:
        with name_in_errors(path):
            os.ftruncate(handle, 0)
            os.write(handle, f"{_holder(what)}\n".encode())

    lock = FileLock(path, _SECONDS, fallback_to_soft=False, on_acquired=sign)
    try:
        lock.acquire()
    except Timeout:
        holder = ""
        with contextlib.suppress(OSError):
            holder = read_bytes(path, 500).decode(errors="replace").strip()
        raise UserError(
            f"{directory}: in use by {holder or 'another process'}; wait for it or stop it"
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
