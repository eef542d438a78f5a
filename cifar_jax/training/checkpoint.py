"""Checkpoints of a run, by Orbax: the whole training state and a record of what made it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cifar_jax.errors import UserError
from cifar_jax.training.state import TrainState

KEEP = 2


def _to_numpy(state: TrainState) -> dict[str, Any]:
    """The state as a tree of NumPy arrays, so that it can be restored on any device."""
    tree = {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
    }
    return jax.tree.map(np.asarray, tree)


def _from_numpy(tree: dict[str, Any]) -> TrainState:
    arrays = jax.tree.map(jax.numpy.asarray, tree)
    return TrainState(**{**arrays, "key": jax.random.wrap_key_data(arrays["key"])})


class Checkpoints:
    """The newest `KEEP` checkpoints under a directory, one sub-directory an epoch.

    A checkpoint holds the item `state` (step, parameters, batch statistics, optimiser state, key)
    and the item `record`, a JSON object: whatever the caller needs to go on, history included.
    Orbax writes to a temporary directory and renames it, so an interrupted save leaves nothing.
    """

    def __init__(self, directory: str | Path, *, create: bool = True) -> None:
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, create=create, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_epoch(self) -> int | None:
        """Epochs finished at the newest checkpoint, or None where there is none."""
        return self._manager.latest_step()

    def save(self, epoch: int, state: TrainState, record: dict[str, Any]) -> None:
        """Save the state after `epoch` finished epochs."""
        self._manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_to_numpy(state)), record=ocp.args.JsonSave(record)
            ),
        )

    def read_record(self) -> dict[str, Any]:
        """The newest checkpoint's record.

        Raises:
            UserError: if there is no checkpoint or it cannot be read.
        """
        restored = self._restore(record=ocp.args.JsonRestore())
        return restored["record"]

    def read_state(self, like: TrainState) -> TrainState:
        """The newest checkpoint's state.

        Args:
            like: a state of the same structure, shapes and dtypes.

        Raises:
            UserError: if there is no checkpoint, it cannot be read, or its shapes differ.
        """
        template = _to_numpy(like)
        tree = self._restore(state=ocp.args.StandardRestore(template))["state"]
        for (path, wanted), found in zip(
            jax.tree_util.tree_leaves_with_path(template), jax.tree.leaves(tree), strict=True
        ):
            if np.shape(wanted) != np.shape(found):
                name = jax.tree_util.keystr(path)
                raise UserError(
                    f"{self.directory}: {name} has shape {np.shape(found)}, "
                    f"the model wants {np.shape(wanted)}"
                )
        return _from_numpy(tree)

    def _restore(self, **items: Any) -> Any:
        epoch = self.latest_epoch()
        if epoch is None:
            raise UserError(f"{self.directory}: there is no checkpoint")
        try:
            return self._manager.restore(epoch, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and tensorstore raise many kinds for a damaged file.
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"{self.directory / str(epoch)}: the checkpoint cannot be read ({reason})"
            ) from error

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()
