"""Check, make and lock the directory of a run."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.failures import FULL
from cifar_jax.lock import locked
from cifar_jax.names import CHECKPOINTS, CONFIG, METRICS, RESULTS, STUDY


def holds_run(workdir: Path) -> bool:
    """Return whether a directory holds a run, finished or not."""
    return any((workdir / name).exists() for name in (CONFIG, METRICS, RESULTS, CHECKPOINTS))


def holds_study(workdir: Path) -> bool:
    """Return whether a directory holds a study, or runs of one that lost its plan."""
    return (workdir / STUDY).exists() or any(workdir.glob("*/seed*"))


def check_workdir(workdir: Path, resume: bool) -> None:
    """Check that a run can write in a directory.

    Raises:
        UserError: it cannot, or there is a run already and `resume` is false.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir}: is not a directory")
    if not resume and holds_run(workdir):
        raise UserError(
            f"--workdir {workdir}: already holds a run; add --resume to continue it, "
            "or choose another --workdir"
        )
    parent = next(p for p in [workdir.absolute(), *workdir.absolute().parents] if p.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"--workdir {workdir}: {parent} cannot be written")


def make_directory(workdir: Path) -> None:
    """Make a directory and its parents.

    Raises:
        UserError: it cannot be made.
        OSError: the disk is full.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"--workdir {workdir}: cannot be made ({error.strerror})") from None


@contextlib.contextmanager
def lock_directory(workdir: Path, wait: float = 0.0) -> Iterator[None]:
    """Lock a directory against other processes, see `locked`. Make it if it is missing.

    Remove a directory made here if it is empty at the end.

    Raises:
        UserError: another process has locked it, or it cannot be made.
    """
    new = not workdir.exists()
    make_directory(workdir)
    try:
        with locked(workdir, wait):
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                workdir.rmdir()
