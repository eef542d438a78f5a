"""The directory of a run, and what is written in it while it trains."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_jax import config as configuration
from cifar_jax import storage as files
from cifar_jax.config import Config
from cifar_jax.core.train import TrainState
from cifar_jax.errors import MachineError, UserError
from cifar_jax.failures import FULL
from cifar_jax.lock import locked
from cifar_jax.names import CHECKPOINTS, CONFIG, METRICS, RESULTS, TENSORBOARD
from cifar_jax.report.tensorboard import Events
from cifar_jax.training.checkpoint import Checkpoints

Row = dict[str, Any]


def holds_run(workdir: Path) -> bool:
    """Whether a directory holds a run, finished or not."""
    return any((workdir / name).exists() for name in (CONFIG, METRICS, RESULTS, CHECKPOINTS))


def check_workdir(workdir: Path, resume: bool) -> None:
    """Refuse a directory that cannot be used, or that holds a run which is not to be resumed."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir}: is not a directory")
    if not resume and holds_run(workdir):
        raise UserError(
            f"--workdir {workdir}: already holds a run; add --resume to go on with it, "
            "or choose another --workdir"
        )
    parent = next(p for p in [workdir.absolute(), *workdir.absolute().parents] if p.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"--workdir {workdir}: {parent} cannot be written")


def make_directory(workdir: Path) -> None:
    """Make a directory and those above it.

    Raises:
        UserError: if it cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"--workdir {workdir}: cannot be made ({error.strerror})") from None


@contextlib.contextmanager
def held(workdir: Path, what: str) -> Iterator[None]:
    """Be the only process that writes in a directory, made if missing, removed if left empty.

    Raises:
        UserError: if another process holds it, or it cannot be made.
    """
    new = not workdir.exists()
    make_directory(workdir)
    try:
        with locked(workdir, what):
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                workdir.rmdir()


def _tag(column: str) -> str:
    """What TensorBoard calls a column: a tab for each split, the others as they are named."""
    split, _, what = column.partition("_")
    return f"{split}/{what}" if split in ("train", "val") else column


@dataclass
class RunFiles:
    """What a run appends to, epoch by epoch.

    Attributes:
        workdir: the run's directory.
        record: what a checkpoint says besides the history.
        history: one row an epoch.
    """

    workdir: Path
    record: Row
    history: list[Row]
    _checkpoints: Checkpoints
    _events: Events

    def add(self, state: TrainState, row: Row) -> None:
        """Keep an epoch: first its checkpoint, then its row.

        Raises:
            MachineError: if the disk is full or the directory is gone.
        """
        self.history.append(row)
        record = {**self.record, "history": self.history}
        self._checkpoints.save(row["epoch"], state, record)
        named = {_tag(name): row[name] for name in row if name != "epoch"}
        try:
            # Opened anew, so that a failed write is not tried again when the file is closed.
            with open(self.workdir / METRICS, "a", encoding="utf-8") as metrics:
                metrics.write(files.json_lines([row]))
            self._events.add(row["epoch"], named)
        except OSError as error:
            raise MachineError(f"{self.workdir}: cannot be written ({error.strerror})") from error

    def add_unfinished(self, state: TrainState, part: Row) -> None:
        """Keep some steps of the epoch after the newest row.

        Args:
            state: after them.
            part: "steps", the "seconds" that they took, and "loss" and "correct" of each.

        Raises:
            MachineError: if the disk is full or the directory is gone.
        """
        record = {**self.record, "history": self.history, "unfinished": part}
        self._checkpoints.save(len(self.history), state, record, part["steps"])


@contextlib.contextmanager
def open_run(workdir: Path, config: Config, record: Row, history: list[Row]) -> Iterator[RunFiles]:
    """Create a run's files, or bring them to where its checkpoint stands.

    Raises:
        UserError: if the directory cannot be made.
    """
    make_directory(workdir)
    files.write_text(workdir / CONFIG, configuration.to_toml(config))
    files.write_text(workdir / METRICS, files.json_lines(history))
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    checkpoints.set_aside_damaged()
    events = Events(workdir / TENSORBOARD, len(history) + 1)
    try:
        yield RunFiles(workdir, record, list(history), checkpoints, events)
    finally:
        events.close()
        checkpoints.close()
