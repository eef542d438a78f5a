"""Save and restore checkpoints with Orbax: the training state, and a record of its origin."""

import contextlib
import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from cifar_jax.core.train import TrainState
from cifar_jax.errors import MachineError, UserError
from cifar_jax.inputs import read_json
from cifar_jax.runner.checkpoint_files import (
    STATE,
    Position,
    damage,
    metadata_path,
    newest_intact,
    saved_positions,
    seal,
)
from cifar_jax.storage import WRITING, remove, reserve, sync

KEEP = 2
FORMAT = 2  # Format 1 had the state of one run, without the running sums of its epoch.
_DAMAGED = "damaged-"
_SPARE = 1 << 20  # bytes of a checkpoint besides its arrays


def _to_numpy(state: TrainState) -> dict[str, Any]:
    """Return the state as a tree of NumPy arrays, which any device can restore.

    On a CPU they may share the memory of the state.
    """
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
    # Copy: on jax 0.5.0, `asarray` can share NumPy's memory. A program from the compilation cache
    # that takes over the buffers of its state writes into that memory, even after NumPy frees it.
    arrays = jax.tree.map(jax.numpy.array, tree)
    return TrainState(**{**arrays, "key": jax.random.wrap_key_data(arrays["key"])})


@contextlib.contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    """Yield a path to a directory without special characters such as `[` and `*`.

    Orbax finds its files by a glob of the whole path, and silently skips files that do not match.
    """
    if str(directory).isprintable() and not re.search(r"[][*?:\\]", str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="cifar_jax-") as temporary:
        link = Path(temporary) / "link"
        link.symlink_to(directory)
        yield link


def _reason(error: Exception) -> str:
    """Describe an error in a few words. If tensorstore wraps a disk error, describe that."""
    text = str(error)
    number = re.search(r"os_error_code='(\d+)'", text)
    if number:
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (text.splitlines() or [type(error).__name__])[0][:200]


class Checkpoints:
    """The newest `KEEP` checkpoints of a group of runs at ends of epochs, each a subdirectory.

    There may be one more from within an epoch: `7+120` is after 7 epochs and 120 steps.
    A checkpoint has two parts. `state`, by Orbax, is the group's `TrainState` with a leading axis
    of runs. `record/metadata` is a JSON object with a record of each run, with its history.
    Orbax's CheckpointManager reads them as the items `state` and `record`.
    A checkpoint gets its name when it is complete. Reading takes the newest undamaged one.
    """

    def __init__(self, directory: str | Path, *, create: bool = True) -> None:
        self.directory = Path(directory).absolute()
        if create:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._verified = False
        self._newest_read: tuple[Path, dict[str, Any]] | None = None

    @functools.cached_property
    def _orbax(self) -> Any:
        import orbax.checkpoint as ocp  # Not needed before the first step.

        # Orbax's composite handler has threads that time out by the wall clock, which may jump, and
        # that print tracebacks on a full disk.
        own = jax.process_index()  # Each process has the whole state, and waits for no other.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own,
            active_processes={own} if jax.process_count() > 1 else None,
            barrier_sync_key_prefix=f"process{own}" if jax.process_count() > 1 else None,
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        return ocp.Checkpointer(handler, multiprocessing_options=alone)

    def positions(self) -> list[Position]:
        """See `saved_positions`."""
        return saved_positions(self.directory)

    def latest(self) -> Position | None:
        """See `newest_intact`."""
        return newest_intact(self.directory)

    def damaged(self) -> list[str]:
        """Describe each damaged checkpoint that is newer than the newest undamaged one."""
        found = []
        for position in self.positions():
            wrong = damage(self.directory / str(position))
            if wrong is None:
                break
            found.append(f"{self.directory / str(position)} is damaged ({wrong})")
        return found

    def rename_damaged(self) -> None:
        """Rename damaged checkpoints to `damaged-<position>`. Their positions are free again."""
        for position in self.positions():
            path = self.directory / str(position)
            if damage(path):
                renamed = self.directory / f"{_DAMAGED}{position}"
                remove(renamed)
                os.replace(path, renamed)

    def save(self, position: Position, state: TrainState, record: Any) -> None:
        """Save the state of a group, see `snapshot`."""
        self.snapshot(position, state, record)()

    def snapshot(
        self, position: Position, state: TrainState, record: Any, index: int | None = None
    ) -> Callable[[], None]:
        """Copy the state of a group to the host. Return a function that writes the checkpoint.

        It also keeps the newest `KEEP` of whole epochs. It raises MachineError if the checkpoint
        cannot be written; earlier ones are unchanged.

        Args:
            position: of the state in training.
            state: with a leading axis of runs, of which the first are those of the group.
            record: a `results.GroupRecord`, of the runs to save.
            index: of the only run to save; None for all.
        """
        plain = msgspec.to_builtins(record)
        chosen = slice(len(plain["runs"])) if index is None else slice(index, index + 1)
        tree = jax.tree.map(lambda leaf: np.array(leaf[chosen]), _to_numpy(state))
        text = json.dumps({"format": FORMAT, **plain})
        return lambda: self._write(position, tree, text)

    def _write(self, position: Position, tree: dict[str, Any], record: str) -> None:
        from orbax.checkpoint.args import StandardSave

        new = self.directory / f"{WRITING}{position}"
        try:
            reserve(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + _SPARE)
            remove(new)
            metadata_path(new).parent.mkdir(parents=True)
            metadata_path(new).write_text(record, encoding="utf-8")
            with _plain(new) as plain:
                self._orbax.save(plain / STATE, args=StandardSave(tree))
            self._verify_first(new, tree)
            seal(new)
            os.replace(new, self.directory / str(position))
            sync(self.directory)
        except Exception as error:  # Orbax and tensorstore raise many types for a disk error.
            remove(new)
            raise MachineError(
                f"{self.directory}: the checkpoint of epoch {position} cannot be written "
                f"({_reason(error)})"
            ) from error
        ends = [other for other in self.positions() if not other.steps]
        for old in self.positions():
            if old == position or old in ends[:KEEP]:
                continue
            # Rename first: a half removed checkpoint must not look like a damaged one.
            renamed = self.directory / f"{WRITING}{old}"
            os.replace(self.directory / str(old), renamed)
            remove(renamed)

    def _verify_first(self, checkpoint: Path, tree: dict[str, Any]) -> None:
        """Read the first checkpoint back. A path at which Orbax loses files loses them each time.

        Raises:
            ValueError: it differs from what was saved.
        """
        if self._verified:
            return
        found = jax.tree.leaves(self._restore(checkpoint, tree))
        for leaf, saved in zip(found, jax.tree.leaves(tree), strict=True):
            if np.asarray(leaf).tobytes() != saved.tobytes():
                raise ValueError("what was read back differs from what was written")
        self._verified = True

    def _restore(self, checkpoint: Path, like: dict[str, Any]) -> dict[str, Any]:
        """Read the state in a checkpoint as a tree of NumPy arrays. `like` has its structure."""
        from orbax.checkpoint.args import StandardRestore

        with _plain(checkpoint) as plain:
            tree: dict[str, Any] = self._orbax.restore(plain / STATE, args=StandardRestore(like))
        return tree

    def read_record(self) -> dict[str, Any]:
        """Return the newest checkpoint's record.

        Raises:
            UserError: there is no checkpoint, or it cannot be read.
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

        The first call reads the states of all runs, and keeps them for the next calls.

        Args:
            like: one run's state, of the same structure, shapes and dtypes.
            index: of the run in its group.

        Raises:
            UserError: there is no checkpoint, it cannot be read, or its shapes differ.
        """
        path = self._newest()
        if self._newest_read is None or self._newest_read[0] != path:
            runs = len(self.read_record()["runs"])
            template = jax.tree.map(
                lambda leaf: np.broadcast_to(leaf, (runs, *leaf.shape)), _to_numpy(like)
            )
            try:
                tree = self._restore(path, template)
            except Exception as error:  # Orbax and tensorstore raise many types.
                raise self._unreadable(path, error) from error
            for (key, wanted), found in zip(
                jax.tree_util.tree_leaves_with_path(template), jax.tree.leaves(tree), strict=True
            ):
                if np.shape(wanted) != np.shape(found):
                    name = jax.tree_util.keystr(key)
                    raise UserError(
                        f"{self.directory}: {name} has shape {np.shape(found)[1:]}, "
                        f"the model needs {np.shape(wanted)[1:]}"
                    )
            self._newest_read = path, tree
        return _from_numpy(jax.tree.map(lambda leaf: leaf[index], self._newest_read[1]))

    def _newest(self) -> Path:
        position = self.latest()
        if position is not None:
            return self.directory / str(position)
        if wrong := self.damaged():
            raise UserError(
                f"{self.directory}: all checkpoints are damaged; {wrong[0]}; restore a copy of it, "
                "or remove the run's directory and train again"
            )
        raise UserError(f"{self.directory}: there is no checkpoint")

    def _unreadable(self, path: Path, error: Exception) -> UserError:
        return UserError(f"{path}: the checkpoint cannot be read ({_reason(error)})")

    def close(self) -> None:
        """Release Orbax's threads."""
        if "_orbax" in vars(self):
            self._orbax.close()
