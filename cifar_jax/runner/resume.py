"""What a run's directory says of its experiment, and where its training goes on."""

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
from cifar_jax.runner.checkpoint import Checkpoints, saved_places
from cifar_jax.runner.directory import CHECKPOINTS, CONFIG, RESULTS, Row
from cifar_jax.storage import read_sealed


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
_UNFINISHED: Shape = {"steps": is_count, "seconds": is_number}


def _holds_unfinished(record: Row) -> bool:
    """Whether what a record says of an unfinished epoch, if anything, can be used."""
    part = record.get("unfinished")
    return part is None or fits(part, _UNFINISHED)


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
            f"{checkpoints.directory}: the newest checkpoint holds no record of a run: it "
            "needs config, dataset, history and compile_seconds"
        )
    return record


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
    if not (workdir / CHECKPOINTS).is_dir():
        return None
    checkpoints = Checkpoints(workdir / CHECKPOINTS, create=False)
    try:
        return _recorded(checkpoints.read_record(), checkpoints.directory)
    finally:
        checkpoints.close()


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
            f"{behind(record['history'], part)}"
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
            record["history"],
            record["compile_seconds"],
            record.get("init_from"),
            damaged,
            record.get("unfinished"),
            tuple(record.get("computed_on", ())),
        )
    finally:
        checkpoints.close()
