"""The directory of a run, and what is written in it while it trains."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_jax import config as configuration
from cifar_jax.combinations import depends_on_length
from cifar_jax.config import Config
from cifar_jax.errors import MachineError, UserError, counted
from cifar_jax.failures import FULL
from cifar_jax.inputs import Shape, fits, is_count, is_name, is_number, optional
from cifar_jax.lock import locked
from cifar_jax.report import files
from cifar_jax.report.tensorboard import Events
from cifar_jax.training.checkpoint import Checkpoints, saved_places
from cifar_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"
CONFIG = "config.toml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"
RESULTS = "results.json"
TENSORBOARD = "tensorboard"

Row = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Where training begins: from scratch, or from a checkpoint.

    Attributes:
        state: to train on from.
        history: rows of the epochs behind it.
        compile_seconds: spent before it.
        origin: of the initial values, where they are another network's.
        damaged: what is wrong with newer checkpoints, in words.
        unfinished: the part of the next epoch that is behind it too, see `RunFiles.add_unfinished`.
        computed_on: by what so far, see `provenance.determinism`.
    """

    state: TrainState
    history: list[Row]
    compile_seconds: float
    origin: Row | None = None
    damaged: tuple[str, ...] = ()
    unfinished: Row | None = None
    computed_on: tuple[str, ...] = ()


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


def find_checkpoints(path: Path, flag: str = "--checkpoint") -> Path:
    """The `checkpoints` directory of a run, given it or the run's directory.

    Args:
        path: one of them.
        flag: that named it, for the message.

    Raises:
        UserError: if there is no checkpoint.
    """
    for candidate in (path / CHECKPOINTS, path):
        if candidate.is_dir() and saved_places(candidate):
            return candidate
    raise UserError(f"{flag} {path}: holds no checkpoint of a run")


_RECORD: Shape = {
    "config": dict,
    "dataset": {"name": is_name, "fingerprint": is_name},
    "history": [
        {name: optional(is_number) for name in ("train_loss", "val_loss", "learning_rate")}
        | {"epoch": is_count, "seconds": is_number}
    ],
    "compile_seconds": is_number,
}
_UNFINISHED: Shape = {
    "steps": is_count,
    "seconds": is_number,
    "loss": [is_number],
    "correct": [is_number],
}


def _holds_unfinished(record: Row) -> bool:
    """Whether what a record says of an unfinished epoch, if anything, can be used."""
    part = record.get("unfinished")
    if part is None:
        return True
    return fits(part, _UNFINISHED) and len(part["loss"]) == len(part["correct"]) == part["steps"]


def _says_where(record: Row) -> bool:
    """Whether what a record says of the devices so far, which old ones do not, can be used."""
    return fits(record.get("computed_on", []), [is_name])


def behind(history: list[Row], unfinished: Row | None) -> str:
    """What a checkpoint has behind it, in words."""
    steps = f" and {counted(unfinished['steps'], 'step')}" if unfinished else ""
    return f"epoch {len(history)}{steps}"


def read_record(checkpoints: Checkpoints) -> Row:
    """The record of a run's newest checkpoint.

    Raises:
        UserError: if there is none, or it is not the record of a run.
    """
    record = checkpoints.read_record()
    if not (fits(record, _RECORD) and _holds_unfinished(record) and _says_where(record)):
        raise UserError(
            f"{checkpoints.directory}: the newest checkpoint holds no record of a run: config, "
            "dataset, history and compile_seconds"
        )
    return record


def _digest(origin: Row | None) -> str | None:
    return origin.get("digest") if isinstance(origin, dict) else None


def _check_resumable(
    record: Row, config: Config, fingerprint: str, origin: Row | None, where: Path
) -> None:
    """Refuse to go on with another experiment than the one that was begun.

    More epochs are another length of the same experiment, unless the learning rate depends on it;
    where the data lie, what they are called and how batches reach the device do not change it.
    """
    before = configuration.from_dict(record["config"], str(where))
    free: tuple[str, ...] = tuple(
        f"data.{name}:" for name in ("dataset", "data_dir", "folder_is_cifar10", "pipeline")
    )
    if not depends_on_length(before.training):
        free = (*free, "training.epochs:")
    changed = [d for d in configuration.differences(before, config) if not d.startswith(free)]
    if changed:
        raise UserError(f"--resume: {where} was begun with another config: {'; '.join(changed)}")
    if record["dataset"]["fingerprint"] != fingerprint:
        raise UserError(
            f"--resume: {where} was begun on other data: {record['dataset']['name']} "
            f"{record['dataset']['fingerprint'][:12]}, not {fingerprint[:12]}"
        )
    if _digest(record.get("init_from")) != _digest(origin):
        raise UserError(
            f"--resume: {where} was begun from other initial values than those that "
            f"{config.transfer.init_from} holds now"
        )
    done = len(record["history"])
    part = record.get("unfinished")
    if done + bool(part) > config.training.epochs:
        raise UserError(
            f"--epochs {config.training.epochs}: {where} is already behind "
            f"{behind(record['history'], part)}"
        )


def begin(
    initial: TrainState,
    config: Config,
    fingerprint: str,
    workdir: Path,
    resume: bool,
    origin: Row | None = None,
) -> Start:
    """The newest checkpoint of a run that is to be resumed and has one, else the initial state.

    Args:
        initial: the state to start from.
        config: of the run.
        fingerprint: of its images.
        workdir: of the run.
        resume: whether to look for a checkpoint.
        origin: what results say about the initial values, where they are another network's.

    Raises:
        UserError: if what is there is another experiment, or cannot be read.
    """
    scratch = Start(initial, [], 0.0, origin)
    if not (resume and (workdir / CHECKPOINTS).is_dir()):
        return scratch
    checkpoints = Checkpoints(workdir / CHECKPOINTS, create=False)
    try:
        if not checkpoints.places():
            return scratch
        damaged = tuple(checkpoints.damaged())
        record = read_record(checkpoints)
        _check_resumable(record, config, fingerprint, origin, workdir)
        state = checkpoints.read_state(initial)
        return Start(
            state,
            record["history"],
            record["compile_seconds"],
            origin,
            damaged,
            record.get("unfinished"),
            tuple(record.get("computed_on", ())),
        )
    finally:
        checkpoints.close()


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
