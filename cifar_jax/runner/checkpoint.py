"""Checkpoints of a run, by Orbax: the whole training state and a record of what made it.

Orbax's own files have checksums in some positions and not in others, so each checkpoint is sealed:
`SHA256SUMS` in it, as `sha256sum` writes it, names every file with its digest. A checkpoint is
compared with its seal before anything in it is decoded.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
import orbax.checkpoint as ocp

from cifar_jax.core.train import TrainState
from cifar_jax.errors import MachineError, UserError
from cifar_jax.failures import is_lack
from cifar_jax.inputs import read_bytes, read_json
from cifar_jax.storage import WRITING, remove, reserve, sha256, sync

KEEP = 2
FORMAT = 2  # 1 had the state of one run, without the sums of its epoch
SEAL = "SHA256SUMS"
_LARGEST_SEAL = 1 << 20
_DAMAGED = "damaged-"
_STATE, _RECORD = "state", "record"
_SPARE = 1 << 20  # bytes of a checkpoint beside its arrays


def _to_numpy(state: TrainState) -> dict[str, Any]:
    """Return the state as a tree of NumPy arrays, which can be restored on any device."""
    tree = {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
        "loss_sum": state.loss_sum,
        "correct_sum": state.correct_sum,
        "bad_step": state.bad_step,
    }
    return jax.tree.map(np.asarray, tree)


def _from_numpy(tree: dict[str, Any]) -> TrainState:
    # Copies: on jax 0.5.0 `asarray` is a view of aligned memory, and a program from the compilation
    # cache that is given the buffers of its state writes into it, though NumPy frees it.
    arrays = jax.tree.map(jax.numpy.array, tree)
    return TrainState(**{**arrays, "key": jax.random.wrap_key_data(arrays["key"])})


@contextlib.contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    """A directory by a path without `[`, `*` and the like.

    Orbax merges its files by a glob of the whole path, and leaves out what it does not find.
    """
    if str(directory).isprintable() and not re.search(r"[][*?:\\]", str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="cifar_jax-") as temporary:
        link = Path(temporary) / "link"
        link.symlink_to(directory)
        yield link


def metadata_path(checkpoint: Path) -> Path:
    """Return where a checkpoint has its record."""
    return checkpoint / _RECORD / "metadata"


def _reason(error: Exception) -> str:
    """What an error says, in a few words; of those that tensorstore wraps, what the disk said."""
    text = str(error)
    number = re.search(r"os_error_code='(\d+)'", text)
    if number:
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (text.splitlines() or [type(error).__name__])[0][:200]


def _digests(checkpoint: Path, *, durable: bool = False) -> dict[str, str]:
    """SHA-256 of every file in a checkpoint but its seal, and hidden ones, by relative path."""
    return {
        path.relative_to(checkpoint).as_posix(): sha256(path, durable=durable)
        for path in sorted(checkpoint.rglob("*"))
        if not path.is_dir() and path.name != SEAL and not path.name.startswith(".")
    }


def _seal_lines(digests: dict[str, str]) -> list[str]:
    return [f"{digest}  {name}" for name, digest in digests.items()]


def seal(checkpoint: Path) -> None:
    """Have a checkpoint's files reach the disk, and write down their digests beside them."""
    lines = _seal_lines(_digests(checkpoint, durable=True))
    (checkpoint / SEAL).write_text("\n".join([*lines, ""]), encoding="utf-8")
    sync(checkpoint / SEAL)
    for path in (*checkpoint.rglob("*"), checkpoint):
        if path.is_dir():
            sync(path)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words, or None if it is as it was sealed."""
    try:
        lines = read_bytes(checkpoint / SEAL, _LARGEST_SEAL).decode("utf-8").split("\n")
        found = _digests(checkpoint)
    except OSError as error:
        if is_lack(error):
            raise
        name = Path(error.filename).name if error.filename else "a file"
        return f"{name} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"{SEAL} is not what was written"
    if lines == [*_seal_lines(found), ""]:
        return None
    sealed = {line[66:]: line[:64] for line in lines if line}
    wrong = [name for name in found if sealed.get(name) != found[name]]
    return f"{wrong[0][:100] if wrong and sealed else SEAL} is not what was written"


class Position(NamedTuple):
    """Where in training a checkpoint was made; the later one is the larger.

    Attributes:
        epoch: epochs finished.
        steps: steps of the next epoch that are behind.
    """

    epoch: int
    steps: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}+{self.steps}" if self.steps else str(self.epoch)


def saved_positions(directory: Path) -> list[Position]:
    """Where a directory has a checkpoint, whole or not, the newest first: `7+120`, `7`, `6`."""
    names = (p.name for p in directory.glob("[0-9]*") if p.is_dir())
    found = (re.fullmatch(r"(0|[1-9]\d{0,9})(?:\+([1-9]\d{0,9}))?", n, re.ASCII) for n in names)
    return sorted((Position(int(m[1]), int(m[2] or 0)) for m in found if m), reverse=True)


def newest_intact(directory: Path) -> Position | None:
    """Where the newest checkpoint that is whole was made, or None where there is none."""
    return next((p for p in saved_positions(directory) if damage(directory / str(p)) is None), None)


class Checkpoints:
    """The newest `KEEP` checkpoints of a group of runs, one sub-directory an epoch.

    Beside them there may be one from within an epoch, `7+120`: after 7 epochs and 120 steps.
    A checkpoint holds `state`, by Orbax: the group's `TrainState`, whose leading axis is the runs.
    It also holds `record/metadata`, a JSON object with a record for each run, history included.
    Orbax's CheckpointManager reads them as the items `state` and `record`. A checkpoint is written
    and sealed under a temporary name, then renamed: an interrupted save leaves no checkpoint.
    Reading takes the newest checkpoint that is whole.
    """

    def __init__(self, directory: str | Path, *, create: bool = True) -> None:
        self.directory = Path(directory).absolute()
        if create:
            self.directory.mkdir(parents=True, exist_ok=True)
        # Not Orbax's composite handler: its threads wait for each other by the wall clock, which
        # may jump, and report a full disk in tracebacks.
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        self._proven = False
        self._newest_read: tuple[Path, dict[str, Any]] | None = None

    def positions(self) -> list[Position]:
        """See `saved_positions`."""
        return saved_positions(self.directory)

    def latest(self) -> Position | None:
        """See `newest_intact`."""
        return newest_intact(self.directory)

    def damaged(self) -> list[str]:
        """What is wrong with each checkpoint newer than the newest whole one, in words."""
        found = []
        for position in self.positions():
            wrong = damage(self.directory / str(position))
            if wrong is None:
                break
            found.append(f"{self.directory / str(position)} is damaged ({wrong})")
        return found

    def rename_damaged(self) -> None:
        """Rename the checkpoints that are not whole, so that training can write them anew."""
        for position in self.positions():
            path = self.directory / str(position)
            if damage(path):
                aside = self.directory / f"{_DAMAGED}{position}"
                remove(aside)
                os.replace(path, aside)

    def save(self, position: Position, state: TrainState, record: Any) -> None:
        """Save the state of a group, and remove all but the newest `KEEP` ends of epochs.

        Args:
            position: epochs finished, and steps of the next one.
            state: with a leading axis of runs.
            record: a `results.GroupRecord`.

        Raises:
            MachineError: if it cannot be written; what was there before is still there.
        """
        new = self.directory / f"{WRITING}{position}"
        tree = _to_numpy(state)
        try:
            reserve(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + _SPARE)
            remove(new)
            metadata_path(new).parent.mkdir(parents=True)
            text = json.dumps({"format": FORMAT, **msgspec.to_builtins(record)})
            metadata_path(new).write_text(text, encoding="utf-8")
            with _plain(new) as plain:
                self._orbax.save(plain / _STATE, args=ocp.args.StandardSave(tree))
            self._prove(new, tree)
            seal(new)
            os.replace(new, self.directory / str(position))
            sync(self.directory)
        except Exception as error:  # Orbax and tensorstore wrap what the disk says in many kinds.
            remove(new)
            raise MachineError(
                f"{self.directory}: the checkpoint of epoch {position} cannot be written "
                f"({_reason(error)})"
            ) from error
        ends = [other for other in self.positions() if not other.steps]
        for old in self.positions():
            if old == position or old in ends[:KEEP]:
                continue
            # First the name: a checkpoint that is half removed must not look like one.
            gone = self.directory / f"{WRITING}{old}"
            os.replace(self.directory / str(old), gone)
            remove(gone)

    def _prove(self, checkpoint: Path, tree: dict[str, Any]) -> None:
        """Read the first checkpoint back: a disk or path that loses a part of one loses it of each.

        Raises:
            ValueError: if it is not what was saved.
        """
        if self._proven:
            return
        found = jax.tree.leaves(self._restore(checkpoint, tree))
        for leaf, saved in zip(found, jax.tree.leaves(tree), strict=True):
            if np.asarray(leaf).tobytes() != saved.tobytes():
                raise ValueError("what was read back differs from what was written")
        self._proven = True

    def _restore(self, checkpoint: Path, like: dict[str, Any]) -> dict[str, Any]:
        """The state in a checkpoint, as a tree of NumPy arrays."""
        with _plain(checkpoint) as plain:
            args = ocp.args.StandardRestore(like)
            tree: dict[str, Any] = self._orbax.restore(plain / _STATE, args=args)
        return tree

    def read_record(self) -> dict[str, Any]:
        """Return the newest checkpoint's record.

        Raises:
            UserError: if there is no checkpoint or it cannot be read.
        """
        path = self._newest()
        try:
            record = read_json(metadata_path(path))
            if not isinstance(record, dict):
                raise ValueError("its record is not a JSON object")
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from None
        if record.pop("format", 1) != FORMAT:
            raise UserError(
                f"{path}: another version of cifar_jax wrote this checkpoint; resume with that "
                "version, or train again in another directory"
            )
        return record

    def read_state(self, like: TrainState, index: int = 0) -> TrainState:
        """Return the state of one run in the newest checkpoint.

        Args:
            like: one run's state, of the same structure, shapes and dtypes.
            index: of the run in its group.

        Raises:
            UserError: if there is no checkpoint, it cannot be read, or its shapes differ.
        """
        path = self._newest()
        if self._newest_read is None or self._newest_read[0] != path:
            runs = len(self.read_record()["runs"])
            template = jax.tree.map(
                lambda leaf: np.broadcast_to(leaf, (runs, *leaf.shape)), _to_numpy(like)
            )
            try:
                tree = self._restore(path, template)
            except Exception as error:  # Orbax and tensorstore raise many kinds.
                raise self._unreadable(path, error) from error
            for (key, wanted), found in zip(
                jax.tree_util.tree_leaves_with_path(template), jax.tree.leaves(tree), strict=True
            ):
                if np.shape(wanted) != np.shape(found):
                    name = jax.tree_util.keystr(key)
                    raise UserError(
                        f"{self.directory}: {name} has shape {np.shape(found)[1:]}, "
                        f"the model wants {np.shape(wanted)[1:]}"
                    )
            self._newest_read = path, tree
        return _from_numpy(jax.tree.map(lambda leaf: leaf[index], self._newest_read[1]))

    def _newest(self) -> Path:
        position = self.latest()
        if position is not None:
            return self.directory / str(position)
        if wrong := self.damaged():
            raise UserError(
                f"{self.directory}: no checkpoint is whole; {wrong[0]}; put back a copy of it, "
                "or remove the run's directory and train again"
            )
        raise UserError(f"{self.directory}: there is no checkpoint")

    def _unreadable(self, path: Path, error: Exception) -> UserError:
        return UserError(f"{path}: the checkpoint cannot be read ({_reason(error)})")

    def close(self) -> None:
        """Release Orbax's threads."""
        self._orbax.close()
