"""The host's turn between epochs and steps: rows, checkpoints, divergence, signals."""

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
from cifar_jax.errors import UserError, counted
from cifar_jax.interrupt import GRACE, Interrupts, Terminated, exit_status
from cifar_jax.report.console import Display, epoch_line
from cifar_jax.resume import Start
from cifar_jax.rundir import RunFiles
from cifar_jax.training.epoch import EpochMetrics
from cifar_jax.training.loop import (
    CompiledEpoch,
    Divergence,
    EpochRow,
    SteppedEpoch,
    Unfinished,
    epochs,
    stack_runs,
    unstack_state,
)
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainState
from cifar_jax.training.step import StepMetrics


class Interrupted(Exception):
    """A run was stopped; the message says what is kept and how to go on.

    Attributes:
        status: the exit status, by the signal that stopped it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Stopped(Exception):
    """A signal was noted between two steps."""


@dataclass(frozen=True)
class Progress:
    """Where a group of runs stands in a longer study, and how long it may go on after SIGTERM.

    Attributes:
        label: what a line of output is about, for example "batch seed 43"; one a run.
        later: epochs of runs that come after this group, for the estimate of the time left.
        grace: seconds that steps under way may take after SIGTERM.
    """

    label: tuple[str, ...] = ("",)
    later: int = 0
    grace: float = GRACE


def resumed_epoch(
    starts: Sequence[Start], program: CompiledEpoch
) -> tuple[Unfinished, float] | None:
    """Where a group of runs stands within an epoch, and its seconds so far; None at its begin.

    Raises:
        UserError: if that is no place in an epoch.
    """
    parts = [start.unfinished for start in starts if start.unfinished]
    if not parts:
        return None
    steps = parts[0]["steps"]
    if len(parts) < len(starts) or any(part["steps"] != steps for part in parts):
        raise ValueError("runs that train together stand at different steps")
    if not 0 < steps <= program.full:
        raise UserError(
            f"--resume: the newest checkpoint says that it is after {counted(steps, 'step')} of an "
            f"epoch; an epoch has {counted(program.full, 'full batch')}"
        )

    def column(name: str, empty: jax.Array) -> jax.Array:
        filled = np.array(np.atleast_2d(empty))
        filled[:, :steps] = [part[name] for part in parts]
        return jnp.array(filled.reshape(empty.shape))

    metrics = StepMetrics(*(column(*pair) for pair in program.empty._asdict().items()))
    state = stack_runs([start.state for start in starts])
    return Unfinished(steps, metrics, state), parts[0]["seconds"]


def save_unfinished(opened: Sequence[RunFiles | None], here: Unfinished, seconds: float) -> bool:
    """Keep what runs have behind them of an epoch; whether any was kept.

    One whose loss is not finite is not kept: it goes on from the checkpoint before.

    Args:
        opened: of the runs that are stacked in `here`; None for one that is not to be kept.
        seconds: that the steps have taken.
    """
    kept = False
    columns = {k: np.atleast_2d(v) for k, v in jax.device_get(here.metrics)._asdict().items()}
    for i, run in enumerate(opened):
        part = {name: column[i, : here.steps].tolist() for name, column in columns.items()}
        if run is not None and np.isfinite(part["loss"]).all():
            row = {"steps": here.steps, "seconds": seconds, **part}
            run.add_unfinished(unstack_state(here.state, i, len(opened)), row)
            kept = True
    return kept


def train_epochs(
    program: CompiledEpoch,
    hyper: Hyperparams,
    state: TrainState,
    opened: Sequence[RunFiles],
    last: int,
    n_train: int,
    progress: Progress,
    display: Display,
    on_divergence: Callable[[int, Divergence, TrainState], None],
    begun: tuple[Unfinished, float] | None = None,
) -> list[TrainState | None]:
    """Train a group of runs up to epoch `last`; each epoch leaves a checkpoint and a row.

    Args:
        on_divergence: called once for a run that diverges, with its index, where, and the state of
            the whole group at the beginning of that epoch, or where it was gone on with.
        begun: see `resumed_epoch`.

    Returns:
        The final states, None for a run that diverged.

    Raises:
        Interrupted: after a signal, at the end of an epoch or between two steps of it.
    """
    seeds = len(opened)
    first = len(opened[0].history) + 1
    diverged = [False] * seeds
    states: list[TrainState | None] = [None] * seeds

    def on_first(stop: KeyboardInterrupt) -> None:
        if isinstance(stop, Terminated):
            how = f"for at most {progress.grace:g} s, and saving what is behind."
            display.say(f"SIGTERM: finishing the steps under way, {how}")
        else:
            how = "Press Ctrl-C again to stop now."
            display.say(f"Interrupted: finishing the steps under way, and saving. {how}")

    if first > last:
        return [unstack_state(state, i, seeds) for i in range(seeds)]
    durations: list[float] = []
    before = state
    here, spent = begun or (Unfinished(0, program.empty, state), 0.0)
    saved = here.steps
    interrupts = Interrupts(on_first, progress.grace)

    def at_boundary(reached: Unfinished) -> None:
        nonlocal here
        here = reached
        # The rest of an epoch is finished: it is short, and can be given up.
        if interrupts.requested is not None and 0 < reached.steps < program.full:
            raise _Stopped
        part = reached.steps / (program.full + 1)
        display.progress("epochs", epoch - 1 + part, last, plain=False)

    def timed(state: TrainState) -> tuple[TrainState, EpochMetrics]:
        nonlocal before
        before = state
        return run(state)

    def stop_at(reached: Unfinished, epoch: int, seconds: float) -> Interrupted | None:
        """Stopped between two steps, with what is behind saved; None where there is nothing."""
        alive = [None if gone else files for files, gone in zip(opened, diverged, strict=True)]
        if reached.steps != saved and not save_unfinished(alive, reached, seconds):
            return None
        return Interrupted(
            f"Stopped in epoch {epoch} of {last}, after {counted(reached.steps, 'step')}; its "
            f"checkpoint is in {_where(opened)}.",
            exit_status(interrupts.requested or Terminated()),
        )

    run = SteppedEpoch(program, hyper, at_boundary, begun and begun[0])
    steps = epochs(timed, state, first, last, n_train, seeds, spent)
    with interrupts:
        for epoch in range(first, last + 1):
            display.progress("epochs", epoch - 1, last, plain=False)
            clock = time.perf_counter()

            def advance() -> tuple[TrainState, list[EpochRow | Divergence]]:
                return next(steps)

            try:
                state, rows = interrupts.run(advance)
            except (_Stopped, Terminated) as stop:
                seconds = spent + (time.perf_counter() - clock) / seeds
                stopped = stop_at(here, epoch, seconds) if here.steps else None
                raise stopped or interrupts.requested or stop from None
            durations.append((time.perf_counter() - clock) / seeds)
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
            spent, saved = 0.0, 0
            stop_asked = interrupts.requested
            if stop_asked is not None and (epoch < last or progress.later):
                raise Interrupted(
                    f"Stopped after epoch {epoch} of {last}; its checkpoint is in "
                    f"{_where(opened)}.",
                    exit_status(stop_asked),
                )
    return [None if d else s for s, d in zip(states, diverged, strict=True)]


def _where(opened: Sequence[RunFiles]) -> Path:
    return opened[0].workdir if len(opened) == 1 else opened[0].workdir.parent


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
