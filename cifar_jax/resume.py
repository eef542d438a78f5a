"""What a run's directory says of its experiment, and where its training goes on."""

import contextlib
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cifar_jax import config as configuration
from cifar_jax.changes import SAME_EXPERIMENT, changes
from cifar_jax.combinations import depends_on_length
from cifar_jax.config import Config
from cifar_jax.core.train import TrainState
from cifar_jax.errors import UserError, counted
from cifar_jax.names import CHECKPOINTS, CONFIG
from cifar_jax.results import (
    CheckpointRecord,
    DatasetRecord,
    Origin,
    Unfinished,
    read_results,
    validate,
)
from cifar_jax.rundir import Row
from cifar_jax.training.checkpoint import Checkpoints, saved_places


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
    origin: Origin | None = None
    damaged: tuple[str, ...] = ()
    unfinished: Unfinished | None = None
    computed_on: tuple[str, ...] = ()


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


def behind(history: Sized, unfinished: Unfinished | None) -> str:
    """The epochs and steps in a checkpoint, in words."""
    steps = f" and {counted(unfinished.steps, 'step')}" if unfinished else ""
    return f"epoch {len(history)}{steps}"


def read_record(checkpoints: Checkpoints) -> CheckpointRecord:
    """The record of a run's newest checkpoint.

    Raises:
        UserError: if there is none, or it is not the record of a run.
    """
    path = checkpoints.directory
    record: CheckpointRecord = validate(checkpoints.read_record(), CheckpointRecord, path)
    return record


@dataclass(frozen=True)
class Recorded:
    """The experiment that a run's directory names.

    Attributes:
        config: of the run.
        dataset: None if only `config.toml` is there.
        origin_digest: see `Training.origin_digest`.
        finished: when, ISO 8601; empty for a run that has not ended.
    """

    config: Config
    dataset: DatasetRecord | None = None
    origin_digest: str | None = None
    finished: str = ""


def _in_checkpoint(workdir: Path) -> CheckpointRecord | None:
    if not (workdir / CHECKPOINTS).is_dir():
        return None
    checkpoints = Checkpoints(workdir / CHECKPOINTS, create=False)
    try:
        return read_record(checkpoints)
    finally:
        checkpoints.close()


def recorded(workdir: Path) -> Recorded | None:
    """Read a run's experiment from its results, else its newest whole checkpoint, else its config.

    Returns:
        None if none of them can be read.
    """
    for read in (read_results, _in_checkpoint):
        with contextlib.suppress(UserError):
            if found := read(workdir):
                finished = getattr(found, "finished", "")
                return Recorded(found.settings, found.dataset, found.origin_digest, finished)
    with contextlib.suppress(UserError):
        return Recorded(configuration.load(workdir / CONFIG))
    return None


def saved_config(workdir: Path) -> Config | None:
    """What `--resume` takes for the experiment of a directory: `config.toml`, else its record.

    Returns:
        None if it holds no run.
    """
    try:
        return configuration.load(workdir / CONFIG)
    except UserError:
        found = recorded(workdir)
        return found.config if found else None


def _check_config(before: Config, config: Config, where: Path) -> None:
    """Refuse to go on with another experiment than the one that was begun.

    More epochs are another length of the same experiment, unless the learning rate depends on it.
    """
    free = (*SAME_EXPERIMENT, "training.epochs")
    changed = changes(before, config, free)
    if changed:
        listed = "; ".join(map(str, changed))
        raise UserError(f"--resume: {where} was begun with another config: {listed}")
    epochs = before.training.epochs, config.training.epochs
    if epochs[0] != epochs[1] and depends_on_length(before.training):
        raise UserError(
            f"--epochs {epochs[1]}: {where} was begun with --schedule {before.training.schedule} "
            f"over {epochs[0]} epochs, and its learning rate depends on that number; "
            f"resume with --epochs {epochs[0]}, or begin another run with --init-from {where}"
        )


def _check_images(dataset: DatasetRecord | None, fingerprint: str, where: Path) -> None:
    if dataset is not None and dataset.fingerprint != fingerprint:
        raise UserError(
            f"--resume: {where} was begun on other data: {dataset.name} "
            f"{dataset.fingerprint[:12]}, not {fingerprint[:12]}"
        )


def _check_resumable(
    record: CheckpointRecord, config: Config, fingerprint: str, where: Path
) -> None:
    """Refuse another experiment, other images, and fewer epochs than were trained."""
    _check_config(record.settings, config, where)
    _check_images(record.dataset, fingerprint, where)
    if len(record.history) + bool(record.unfinished) > config.training.epochs:
        raise UserError(
            f"--epochs {config.training.epochs}: {where} is already past "
            f"{behind(record.history, record.unfinished)}"
        )


def resumed(like: TrainState, config: Config, fingerprint: str, workdir: Path) -> Start | None:
    """The newest checkpoint of a run, or None if it has none.

    It holds the whole state and says where the initial values came from: what they were taken
    from is not needed, and may have moved or been trained on.

    Args:
        like: a state of the same structure.
        config: of the run.
        fingerprint: of its images.
        workdir: of the run.

    Raises:
        UserError: if what is there is another experiment, or cannot be read.
    """
    if not (workdir / CHECKPOINTS).is_dir() or not saved_places(workdir / CHECKPOINTS):
        left = recorded(workdir)
        if left is not None:
            _check_config(left.config, config, workdir)
            _check_images(left.dataset, fingerprint, workdir)
        return None
    checkpoints = Checkpoints(workdir / CHECKPOINTS, create=False)
    try:
        damaged = tuple(checkpoints.damaged())
        record = read_record(checkpoints)
        _check_resumable(record, config, fingerprint, workdir)
        return Start(
            checkpoints.read_state(like),
            [msgspec.to_builtins(row) for row in record.history],
            record.compile_seconds,
            record.init_from,
            damaged,
            record.unfinished,
            record.computed_on,
        )
    finally:
        checkpoints.close()
