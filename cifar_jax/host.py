"""The host's turn between epochs and steps: rows, checkpoints, divergence, signals."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Metrics, TrainState
from cifar_jax.errors import UserError, counted
from cifar_jax.interrupt import GRACE, Interrupts, Terminated, exit_status
from cifar_jax.names import CHECKPOINTS
from cifar_jax.report.console import Display, epoch_line
from cifar_jax.resume import Start
from cifar_jax.rundir import RunFiles
from cifar_jax.training.loop import (
    CompiledEpoch,
    Divergence,
    EpochRow,
    SteppedEpoch,
    epochs,
    unstack_state,
)


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


def resumed_steps(starts: Sequence[Start], program: CompiledEpoch) -> int:
    """Return how many steps of their next epoch a group of runs has taken.

    Raises:
        UserError: if an epoch has no boundary there.
    """
    steps = {int(start.state.step) % program.steps for start in starts}
    if len(steps) > 1:
        raise ValueError("runs that train together must be at the same step")
    (step,) = steps
    if step > program.full or (step == 0) != (starts[0].unfinished is None):
        raise UserError(
            f"--resume: the newest checkpoint says that it is after {counted(step, 'step')} of an "
            f"epoch; an epoch has {counted(program.full, 'full batch')}"
        )
    return step


def save_unfinished(
    opened: Sequence[RunFiles | None], steps: int, state: TrainState, seconds: float
) -> bool:
    """Save mid-epoch checkpoints. Return whether any was saved.

    A run whose loss is not finite is not saved: it resumes from the checkpoint before.

    Args:
        opened: of the runs that are stacked in `state`; None for one that is not to be saved.
        steps: of the epoch so far.
        seconds: that the steps have taken.
    """
    healthy = np.atleast_1d(np.asarray(state.bad_step)) < 0
    saved = False
    for i, run in enumerate(opened):
        if run is not None and healthy[i]:
            one = unstack_state(state, i, len(opened))
            run.add_unfinished(one, {"steps": steps, "seconds": seconds})
            saved = True
    return saved


def train_epochs(
    program: CompiledEpoch,
    hyper: Hyper,
    state: TrainState,
    opened: Sequence[RunFiles],
    last: int,
    n_train: int,
    progress: Progress,
    display: Display,
    on_divergence: Callable[[int, Divergence, TrainState], None],
    begun: tuple[int, float] = (0, 0.0),
) -> list[TrainState | None]:
    """Train a group of runs up to epoch `last`; each epoch leaves a checkpoint and a row.

    Args:
        on_divergence: called once for a run that diverges, with its index, where, and the state of
            the whole group at the beginning of that epoch, or where it was gone on with.
        begun: steps of the first epoch that are done, and the seconds that they took.

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
    saved, spent = begun
    here = (saved, state)
    interrupts = Interrupts(on_first, progress.grace)

    def at_boundary(steps: int, state: TrainState) -> None:
        nonlocal here
        here = (steps, state)
        # The end of an epoch is finished: it is short, and can be given up.
        if interrupts.requested is not None and 0 < steps < program.full:
            raise _Stopped
        part = steps / (program.full + 1)
        display.progress("epochs", epoch - 1 + part, last, plain=False)

    def timed(state: TrainState) -> tuple[TrainState, Metrics]:
        nonlocal before
        before = state
        return run(state)

    def stop_at(steps: int, state: TrainState, epoch: int, seconds: float) -> Interrupted | None:
        """Save between two steps; None if there is nothing to save."""
        alive = [None if gone else files for files, gone in zip(opened, diverged, strict=True)]
        if steps != saved and not save_unfinished(alive, steps, state, seconds):
            return None
        return Interrupted(
            f"Stopped in epoch {epoch} of {last}, after {counted(steps, 'step')}; its "
            f"checkpoint is in {_where(opened)}.",
            exit_status(interrupts.requested or Terminated()),
        )

    run = SteppedEpoch(program, hyper, at_boundary, saved)
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
                stopped = stop_at(*here, epoch, seconds) if here[0] else None
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
    kept = [w for w in workdirs if any((w / CHECKPOINTS).glob("[0-9]*"))]
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
