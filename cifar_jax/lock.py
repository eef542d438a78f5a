"""Lock a directory, so that only one process writes in it, on any machine that shares it."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease, Timeout

from cifar_jax.errors import UserError, printable
from cifar_jax.names import LOCK
from cifar_jax.storage import name_in_errors, remove_unfinished

# Seconds. The owner renews its lock each `BEAT`. Another machine takes over a lock that was not
# renewed for `LEASE`. All processes must agree on it.
LEASE, BEAT = 60.0, 15.0
# A process that ends removes the lock file. One that waits for that file must try again.
_SECONDS = 0.1


def _owner(lock: SoftFileLease) -> tuple[str, str]:
    """Return the owner of a lock in words, and its machine. Empty if it cannot be read."""
    found = lock.owner
    if found is None:
        return "another process", ""
    return printable(f"process {found.pid} on {found.hostname}"), found.hostname


def _lost(lock: LeaseCompromise) -> None:
    """End this process: another one may write in the directory by now."""
    print(
        printable(
            f"cifar_jax: error: {lock.lock_file}: no longer this process's ({lock.reason}), so it "
            "ends; the machine slept, or lost its connection to the files"
        ),
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _acquire(lock: SoftFileLease, directory: Path, wait: float) -> None:
    """Acquire a lock. Wait for one whose machine may be dead until it expires."""
    try:
        lock.acquire(timeout=max(wait, _SECONDS))
        return
    except Timeout:
        owner, host = _owner(lock)
        if host in ("", socket.gethostname()):
            raise
    print(f"{directory}: locked by {owner}; waiting {LEASE:.0f} s, if it is dead", file=sys.stderr)
    lock.acquire(timeout=LEASE + BEAT)


@contextlib.contextmanager
def locked(directory: Path, wait: float = 0.0) -> Iterator[None]:
    """Lock a directory against other processes, and remove unfinished files in it.

    The lock is the file `lock`, which names the process. If that process was killed, another one
    takes the lock over: on the same machine at once, on another one when it expires. It expires
    after `LEASE`, measured by the clock of the process that takes it over.

    The file system must create a file for one process alone, and show its time of change to all
    machines. Local ones and NFS do. Object stores that look like one do not.

    Args:
        directory: to write in.
        wait: seconds to wait for another process to release it.

    Raises:
        UserError: another process has the lock; the message names it.
        OSError: the file cannot be made.
    """
    path = directory / LOCK
    lock = SoftFileLease(
        path,
        lease_duration=LEASE,
        heartbeat_interval=BEAT,
        on_compromise=_lost,
        thread_local=False,
    )
    try:
        with name_in_errors(path):
            _acquire(lock, directory, wait)
    except Timeout:
        raise UserError(
            f"{directory}: in use by {_owner(lock)[0]}; wait for it or stop it"
        ) from None
    try:
        remove_unfinished(directory)
        yield
    finally:
        lock.release()
