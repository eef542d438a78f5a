"""One writer a directory."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.names import LOCK
from cifar_jax.storage import naming, open_descriptor, remove_unfinished

# A file system without locks: two processes in one directory are then the user's business.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def _holder(what: str) -> str:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} ({what}), since {since}"


@contextlib.contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Be the only process that writes in a directory.

    The lock is `flock` on the file `lock` in it, which holds the holder's name. The kernel
    releases it when the process ends, however it ends, so that one left by a dead process is
    simply taken. Where the file system has no locks, none is taken.

    Args:
        directory: to write in.
        what: the process is doing, for others to read.

    Raises:
        UserError: naming the holder, if another process has it.
        OSError: if the file cannot be made.
    """
    path = directory / LOCK
    with contextlib.ExitStack() as stack:
        while True:
            handle = stack.enter_context(open_descriptor(path, os.O_RDWR | os.O_CREAT))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 500, 0).decode(errors="replace").strip()
                raise UserError(
                    f"{directory}: in use by {holder or 'another process'}; wait for it or stop it"
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    break
            # Else its holder removed it, as the last thing before letting go.
        remove_unfinished(directory)
        try:
            with naming(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{_holder(what)}\n".encode(), 0)
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
