"""The host's turn between epochs: rows, checkpoints, divergence, signals."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax import rundir
from cifar_jax.interrupt import GRACE, Interrupts, Terminated, exit_status
from cifar_jax.report.console import Display, epoch_line
from cifar_jax.rundir import RunFiles
from cifar_jax.training.epoch import EpochMetrics
from cifar_jax.training.loop import Divergence, EpochRow, RunEpoch, epochs, unstack_state
from cifar_jax.training.state import TrainState


class Interrupted(Exception):
    """A run was stopped; the message says what is kept and how to go on.

    Attributes:
        status: the exit status, by the signal that stopped it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Progress:
    """Where a group of runs stands in a longer study, and how long it may go on after SIGTERM.

    Attributes:
        label: what a line of output is about, for example "batch seed 43"; one a run.
        later: epochs of runs that come after this group, for the estimate of the time left.
        grace: seconds that an epoch and its checkpoint may take after SIGTERM.
    """

    label: tuple[str, ...] = ("",)
    later: int = 0
    grace: float = GRACE


def train_epochs(
    run: RunEpoch,
    state: TrainState,
    opened: Sequence[RunFiles],
    last: int,
    n_train: int,
    progress: Progress,
    display: Display,
    on_divergence: Callable[[int, Divergence, TrainState | None], None],
    keep_start: bool,
) -> list[TrainState | None]:
    """Train a group of runs up to epoch `last`; each epoch leaves a checkpoint and a row.

    Args:
        on_divergence: called once for a run that diverges, with its index, where, and with
            `keep_start` the state of the whole group at the beginning of that epoch.

    Returns:
        The final states, None for a run that diverged.
    """
    seeds = len(opened)
    first = len(opened[0].history) + 1
    diverged = [False] * seeds
    states: list[TrainState | None] = [None] * seeds

    def on_first(stop: KeyboardInterrupt) -> None:
        if isinstance(stop, Terminated):
            how = f"for at most {progress.grace:g} s, then the epoch is discarded."
            display.say(f"SIGTERM: finishing this epoch and its checkpoint, {how}")
        else:
            how = "Press Ctrl-C again to stop now."
            display.say(f"Interrupted: finishing this epoch and its checkpoint. {how}")

    if first > last:
        return [unstack_state(state, i, seeds) for i in range(seeds)]
    durations: list[float] = []
    before: TrainState | None = None

    def timed(state: TrainState) -> tuple[TrainState, EpochMetrics]:
        nonlocal before
        # The epoch is given the buffers of its state, which are gone afterwards.
        before = jax.tree.map(jnp.copy, state) if keep_start else None
        return run(state)

    steps = epochs(timed, state, first, last, n_train, seeds)
    with Interrupts(on_first, progress.grace) as interrupts:
        for epoch in range(first, last + 1):
            display.progress("epochs", epoch - 1, last, plain=False)
            begun = time.perf_counter()

            def advance() -> tuple[TrainState, list[EpochRow | Divergence]]:
                return next(steps)

            state, rows = interrupts.run(advance)
            durations.append((time.perf_counter() - begun) / seeds)
            if epoch == first and durations[0] * seeds > progress.grace:
                display.say(
                    f"an epoch takes {durations[0] * seeds:.0f} s: SIGTERM waits for its end no "
                    f"longer than {progress.grace:g} s (--grace), then the epoch is discarded"
                )
            left = ((last - epoch) * seeds + progress.later) * float(np.median(durations))
            for i, row in enumerate(rows):
                if diverged[i]:
                    continue
                if isinstance(row, Divergence):
                    diverged[i] = True
                    on_divergence(i, row, before)
                    continue
                states[i] = one = unstack_state(state, i, seeds)
                opened[i].add(one, dataclasses.asdict(row))
                line = epoch_line(dataclasses.asdict(row), last, left)
                display.say(f"{progress.label[i]}  {line}" if progress.label[i] else line)
            if all(diverged):
                break
            stop = interrupts.requested
            if stop is not None and (epoch < last or progress.later):
                where = opened[0].workdir if seeds == 1 else opened[0].workdir.parent
                raise Interrupted(
                    f"Stopped after epoch {epoch} of {last}; its checkpoint is in {where}.",
                    exit_status(stop),
                )
    return [None if d else s for s, d in zip(states, diverged, strict=True)]


def discarded(
    workdirs: Sequence[Path], fresh: Sequence[bool], stop: KeyboardInterrupt
) -> Interrupted:
    """Stopped at once: tidy up, and say what is left."""
    kept = [w for w in workdirs if any((w / rundir.CHECKPOINTS).glob("[0-9]*"))]
    for workdir, new in zip(workdirs, fresh, strict=True):
        if new and workdir not in kept:
            shutil.rmtree(workdir, ignore_errors=True)
    if kept:
        message = (
            f"Stopped; what is unfinished is discarded, {kept[0]} keeps the newest checkpoint."
        )
    else:
        message = "Stopped in the first epoch; nothing is kept."
    return Interrupted(message, exit_status(stop))
