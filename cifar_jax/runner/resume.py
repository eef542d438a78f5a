"""Read a run's experiment from its directory, and resume it from a checkpoint."""

import contextlib
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path

from cifar_jax.config import tables
from cifar_jax.config.changes import SAME_EXPERIMENT, changes
from cifar_jax.config.combinations import depends_on_length
from cifar_jax.config.settings import Config
from cifar_jax.core.train import TrainState
from cifar_jax.errors import UserError, counted
from cifar_jax.names import CONFIG
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.group import Run
from cifar_jax.runner.locate import locate
from cifar_jax.runner.results import (
    DatasetRecord,
    EpochRow,
    GroupRecord,
    Origin,
    RunRecord,
    Spent,
    Unfinished,
    read_results,
    validate,
)

NOTHING = Spent()


@dataclass(frozen=True)
class Start:
    """Where a run begins: from scratch, or from a checkpoint.

    Attributes:
        state: of the run.
        history: rows of its finished epochs.
        compile_seconds: spent so far.
        origin: of the initial values, if they are another network's.
        damaged: what is wrong with newer checkpoints, in words.
        unfinished: finished steps of the next epoch.
        computed_on: devices and versions so far, see `provenance.determinism`.
        spent: where the time so far went; None if an earlier version's checkpoint does not say.
    """

    state: TrainState
    history: tuple[EpochRow, ...]
    compile_seconds: float
    origin: Origin | None = None
    damaged: tuple[str, ...] = ()
    unfinished: Unfinished | None = None
    computed_on: tuple[str, ...] = ()
    spent: Spent | None = NOTHING


def progress_text(history: Sized, unfinished: Unfinished | None) -> str:
    """Describe a checkpoint's position, such as "epoch 7 and 120 steps"."""
    steps = f" and {counted(unfinished.steps, 'step')}" if unfinished else ""
    return f"epoch {len(history)}{steps}"


def read_record(checkpoints: Checkpoints, index: int = 0) -> tuple[RunRecord, Unfinished | None]:
    """Read the record of a run, and its unfinished epoch if any, from the newest checkpoint.

    Args:
        index: of the run in its group.

    Raises:
        UserError: there is no checkpoint, or its record is damaged.
    """
    found: GroupRecord = validate(checkpoints.read_record(), GroupRecord, checkpoints.directory)
    return found.runs[index], found.unfinished


@dataclass(frozen=True)
class Recorded:
    """A run's experiment, as recorded in its directory.

    Attributes:
        config: of the run.
        dataset: of the run; None if only `config.toml` can be read.
        origin_digest: see `Training.origin_digest`.
        finished: time of its end, ISO 8601; empty for an unfinished run.
    """

    config: Config
    dataset: DatasetRecord | None = None
    origin_digest: str | None = None
    finished: str = ""


def _in_checkpoint(workdir: Path) -> RunRecord | None:
    found = locate(workdir)
    if found is None:
        return None
    with contextlib.closing(Checkpoints(found.directory, create=False)) as checkpoints:
        return read_record(checkpoints, found.run)[0]


def read_recorded(workdir: Path) -> Recorded | None:
    """Read a run's experiment from its results, its newest checkpoint, or its config.

    The first of them that can be read counts. Return None if none can be read.
    """
    for read in (read_results, _in_checkpoint):
        with contextlib.suppress(UserError):
            if found := read(workdir):
                finished = getattr(found, "finished", "")
                return Recorded(found.settings, found.dataset, found.origin_digest, finished)
    with contextlib.suppress(UserError):
        return Recorded(tables.load(workdir / CONFIG))
    return None


def saved_config(workdir: Path) -> Config | None:
    """Return the config of a directory's run for `--resume`, or None if there is no run.

    It is that of `config.toml`, or else that of `read_recorded`.
    """
    try:
        return tables.load(workdir / CONFIG)
    except UserError:
        found = read_recorded(workdir)
        return found.config if found else None


def _check_config(before: Config, config: Config, where: Path) -> None:
    """Check that a run to be resumed has the same config.

    The number of epochs may change, unless the learning rate depends on it.

    Raises:
        UserError: another field differs.
    """
    free = (*SAME_EXPERIMENT, "training.epochs")
    changed = changes(before, config, free)
    if changed:
        listed = "; ".join(map(str, changed))
        raise UserError(f"--resume: {where} was begun with another config: {listed}")
    epochs = before.training.epochs, config.training.epochs
    if epochs[0] != epochs[1] and before.experiment.file is not None:
        raise UserError(
            f"--epochs {epochs[1]}: {where} was begun with {epochs[0]} epochs, and the schedule of "
            f"{before.experiment.file} may depend on that number"
        )
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
    record: RunRecord, unfinished: Unfinished | None, run: Run, fingerprint: str
) -> None:
    """Check that a run to be resumed has the same config and images.

    Raises:
        UserError: they differ, or the checkpoint is already past the last epoch.
    """
    config, where = run.config, run.workdir
    _check_config(record.settings, config, where)
    _check_images(record.dataset, fingerprint, where)
    if len(record.history) + bool(unfinished) > config.training.epochs:
        raise UserError(
            f"--epochs {config.training.epochs}: {where} is already past "
            f"{progress_text(record.history, unfinished)}"
        )


def resume_run(
    like: TrainState,
    run: Run,
    fingerprint: str,
    open_checkpoints: Callable[[Path], Checkpoints],
) -> Start | None:
    """Read the newest checkpoint of a run. Return None if there is none.

    The source of its initial values is not needed again.

    Args:
        like: a state of the same structure.
        run: to resume.
        fingerprint: of the run's images.
        open_checkpoints: opens the checkpoints in a directory.

    Raises:
        UserError: the checkpoint is of another experiment, or cannot be read.
    """
    found = locate(run.workdir)
    if found is None:
        recorded = read_recorded(run.workdir)
        if recorded is not None:
            _check_config(recorded.config, run.config, run.workdir)
            _check_images(recorded.dataset, fingerprint, run.workdir)
        return None
    checkpoints = open_checkpoints(found.directory)
    damaged = tuple(checkpoints.damaged())
    record, unfinished = read_record(checkpoints, found.run)
    _check_resumable(record, unfinished, run, fingerprint)
    return Start(
        checkpoints.read_state(like, found.run),
        record.history,
        record.compile_seconds,
        record.init_from,
        damaged,
        unfinished,
        record.computed_on,
        record.spent,
    )
