"""What a run's directory says of its experiment, and where it resumes."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_jax import config as configuration
from cifar_jax.changes import SAME_EXPERIMENT, changes
from cifar_jax.combinations import depends_on_length
from cifar_jax.config import Config
from cifar_jax.core.train import TrainState
from cifar_jax.errors import UserError, counted
from cifar_jax.inputs import Shape, fits, is_count, is_name, is_number, optional
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.directory import CONFIG, RESULTS
from cifar_jax.runner.group import Row, Run
from cifar_jax.runner.locate import locate
from cifar_jax.storage import read_sealed


@dataclass(frozen=True)
class Start:
    """Where a run begins: from scratch, or from a checkpoint.

    Attributes:
        state: of the run.
        history: rows of its finished epochs.
        compile_seconds: spent so far.
        origin: of the initial values, if they are another network's.
        damaged: what is wrong with newer checkpoints, in words.
        unfinished: "steps" of the next epoch, and the "seconds" that they took.
        computed_on: devices and versions so far, see `provenance.determinism`.
    """

    state: TrainState
    history: list[Row]
    compile_seconds: float
    origin: Row | None = None
    damaged: tuple[str, ...] = ()
    unfinished: Row | None = None
    computed_on: tuple[str, ...] = ()


_RECORD: Shape = {
    "config": dict,
    "dataset": {"name": is_name, "fingerprint": is_name},
    "history": [
        {name: optional(is_number) for name in ("train_loss", "val_loss", "learning_rate")}
        | {"epoch": is_count, "seconds": is_number}
    ],
    "compile_seconds": is_number,
}
_UNFINISHED: Shape = {"steps": is_count, "seconds": is_number}


def _holds_unfinished(record: Row) -> bool:
    """Return whether a record's entry of an unfinished epoch, if any, can be used."""
    part = record.get("unfinished")
    return part is None or fits(part, _UNFINISHED)


def _says_where(record: Row) -> bool:
    """Return whether a record's entry of the devices so far, if any, can be used."""
    return fits(record.get("computed_on", []), [is_name])


def progress_text(history: list[Row], unfinished: Row | None) -> str:
    """Return how far a checkpoint is, such as "epoch 7 and 120 steps"."""
    steps = f" and {counted(unfinished['steps'], 'step')}" if unfinished else ""
    return f"epoch {len(history)}{steps}"


def read_record(checkpoints: Checkpoints, index: int = 0) -> Row:
    """Return the record of one run in the newest checkpoint of its group.

    Raises:
        UserError: if there is none, or it is not the record of a run.
    """
    group = checkpoints.read_record()
    runs = group.get("runs")
    record = runs[index] if isinstance(runs, list) and index < len(runs) else {}
    if fits(record, _RECORD) and _holds_unfinished(group) and _says_where(record):
        return {**record, "unfinished": group.get("unfinished")}
    raise UserError(
        f"{checkpoints.directory}: the newest checkpoint holds no record of a run: it "
        "needs config, dataset, history and compile_seconds"
    )


@dataclass(frozen=True)
class Recorded:
    """What a run's directory says of its experiment.

    Attributes:
        config: of the run.
        dataset: the record of its images; None where only `config.toml` is there.
        origin: of the initial values, where they are another network's.
        finished: when, ISO 8601; empty for a run that is not.
    """

    config: Config
    dataset: Row | None = None
    origin: Row | None = None
    finished: str = ""


_SAID: Shape = {"config": dict, "dataset": {"fingerprint": is_name, "classes": [is_name]}}


def _recorded(found: Any, where: Path) -> Recorded | None:
    if not fits(found, _SAID):
        return None
    origin, finished = found.get("init_from"), found.get("finished")
    return Recorded(
        configuration.from_dict(found["config"], str(where)),
        found["dataset"],
        origin if isinstance(origin, dict) else None,
        finished if isinstance(finished, str) else "",
    )


def _in_checkpoint(workdir: Path) -> Recorded | None:
    found = locate(workdir)
    if found is None:
        return None
    with contextlib.closing(Checkpoints(found.directory, create=False)) as checkpoints:
        return _recorded(read_record(checkpoints, found.run), found.directory)


def recorded(workdir: Path) -> Recorded | None:
    """What a directory says: its results, else its newest whole checkpoint, else `config.toml`.

    Returns:
        None if it holds none of them that can be read.
    """
    for read in (
        lambda: _recorded(read_sealed(workdir / RESULTS), workdir / RESULTS),
        lambda: _in_checkpoint(workdir),
        lambda: Recorded(configuration.load(workdir / CONFIG)),
    ):
        try:
            found = read()
        except (OSError, ValueError, UserError):
            continue
        if found is not None:
            return found
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


def _check_images(dataset: Row | None, fingerprint: str, where: Path) -> None:
    if dataset is not None and dataset["fingerprint"] != fingerprint:
        raise UserError(
            f"--resume: {where} was begun on other data: {dataset.get('name')} "
            f"{dataset['fingerprint'][:12]}, not {fingerprint[:12]}"
        )


def _check_resumable(record: Row, config: Config, fingerprint: str, where: Path) -> None:
    """Refuse another experiment, other images, and fewer epochs than were trained."""
    _check_config(configuration.from_dict(record["config"], str(where)), config, where)
    _check_images(record["dataset"], fingerprint, where)
    done = len(record["history"])
    part = record.get("unfinished")
    if done + bool(part) > config.training.epochs:
        raise UserError(
            f"--epochs {config.training.epochs}: {where} is already past "
            f"{progress_text(record['history'], part)}"
        )


def resumed(
    like: TrainState,
    run: Run,
    fingerprint: str,
    open_checkpoints: Callable[[Path], Checkpoints],
) -> Start | None:
    """Return the newest checkpoint of a run, or None if it has none.

    It holds the whole state and where the initial values came from. Their source is not needed.

    Args:
        like: a state of the same structure.
        fingerprint: of the run's images.

    Raises:
        UserError: if the checkpoint is of another experiment, or cannot be read.
    """
    found = locate(run.workdir)
    if found is None:
        left = recorded(run.workdir)
        if left is not None:
            _check_config(left.config, run.config, run.workdir)
            _check_images(left.dataset, fingerprint, run.workdir)
        return None
    checkpoints = open_checkpoints(found.directory)
    damaged = tuple(checkpoints.damaged())
    record = read_record(checkpoints, found.run)
    _check_resumable(record, run.config, fingerprint, run.workdir)
    return Start(
        checkpoints.read_state(like, found.run),
        record["history"],
        record["compile_seconds"],
        record.get("init_from"),
        damaged,
        record.get("unfinished"),
        tuple(record.get("computed_on", ())),
    )
