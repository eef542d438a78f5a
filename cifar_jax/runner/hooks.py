"""Hooks: what the host does between two calls of compiled programs.

Each hook is called with the group at its newest boundary. `group.at.metrics` is None within an
epoch: most hooks wait for the end of the epoch.
"""

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import structs

from cifar_jax.errors import MachineError, counted
from cifar_jax.names import CHECKPOINTS, METRICS, TENSORBOARD
from cifar_jax.runner.boundaries import Boundary
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.console import Display, epoch_line
from cifar_jax.runner.group import Divergence, Group, position_of
from cifar_jax.runner.processes import of_any
from cifar_jax.runner.remaining import Remaining
from cifar_jax.runner.results import EpochRow
from cifar_jax.runner.signals import Interrupts, Terminated, exit_status
from cifar_jax.runner.tensorboard import Events
from cifar_jax.runner.writer import Writer
from cifar_jax.storage import json_lines

Hook = Callable[[Group], None]


class Interrupted(Exception):
    """A run was stopped; the message says what is saved and how to resume.

    Attributes:
        status: the command's exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Bar:
    """Moves the progress bar."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def __call__(self, group: Group) -> None:
        # The end of an epoch counts as a step: the bar is full only after it.
        steps = group.at.steps / (group.program.full + 1)
        done = group.at.epoch - 1 + (steps if group.at.metrics is None else 1)
        self._display.progress("epochs", done, group.last, plain=False)


class Lines:
    """Prints a line for each run and epoch, with an estimate of the time left."""

    def __init__(self, display: Display, remaining: Remaining) -> None:
        self._display, self._remaining = display, remaining

    def __call__(self, group: Group) -> None:
        if group.at.metrics is None:
            return
        left = self._remaining.seconds(group.last - group.at.epoch)
        for i in group.alive:
            line = epoch_line(group.newest_row(i), group.last, left)
            label = group.runs[i].label
            self._display.say(f"{label}  {line}" if label else line)


class Divergences:
    """Reports each run that diverges, once.

    Args:
        report: called with the run's index, its divergence, and the boundary before that epoch.
        first: the group as it starts or resumes.
    """

    def __init__(self, report: Callable[[int, Divergence, Boundary], None], first: Group) -> None:
        self._report, self._before = report, first.at

    def __call__(self, group: Group) -> None:
        if group.at.metrics is None:
            return
        for i, found in group.diverged.items():
            if found.epoch == group.at.epoch:
                self._report(i, found, self._before)
        self._before = group.at


class Saves:
    """Saves checkpoints by a thread: of the group by the clock, of single runs at their end.

    A checkpoint of the group is due `every` seconds after the last one, at the end of an epoch. It
    is due within an epoch that takes longer. If the thread still writes, it is due at the next
    boundary.

    Args:
        checkpoints: of the group.
        writer: the thread. It reads copies of the states.
        first: the group as it starts or resumes.
        every: seconds.
        clock: returns seconds.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        writer: Writer,
        first: Group,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints, self._writer, self._newest = checkpoints, writer, first.position
        self._every, self._clock = every, clock
        self._begun = self._saved = clock()  # of the epoch; the last checkpoint of a whole epoch

    def __call__(self, group: Group) -> None:
        self._writer.check()
        now, ends = self._clock(), group.at.metrics is not None
        due = now - (self._saved if ends else self._begun) >= self._every
        last = group.at.epoch == group.last and ends  # Then each run is saved.
        if due and not last and not self._writer.busy and self._start(group):
            self._begun = now
            self._saved = now if ends else self._saved
        if ends:
            self._begun = now

    def save(self, group: Group) -> bool:
        """Save the group. Return whether its newest checkpoint is from this boundary.

        A run with a non-finite loss resumes from an earlier checkpoint. If all runs have one,
        nothing is saved.

        Raises:
            MachineError: it, or the one before, cannot be written.
        """
        saved = self._start(group)
        self._writer.wait()
        return saved

    def _start(self, group: Group) -> bool:
        """Begin to save the group, as `save`."""
        if group.position == self._newest:
            return True
        healthy = np.asarray(group.at.state.bad_step) < 0
        if not any(healthy[i] for i in group.alive):
            return False
        everyone = group.record(range(len(group.runs)))
        self._writer.start(self._checkpoints.snapshot(group.position, group.at.state, everyone))
        self._newest = group.position
        return True

    def save_runs(self, group: Group, indices: Sequence[int], at: Boundary) -> None:
        """Begin to save runs at the end of an epoch, each in its own directory."""
        if len(group.runs) > 1:
            writes = [_own(group, i, at) for i in indices]
            self._writer.start(lambda: [write() for write in writes])
        elif indices and (position := position_of(at)) > self._newest:
            record = group.record(indices)
            self._writer.start(self._checkpoints.snapshot(position, at.state, record))
            self._newest = position

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            MachineError: it cannot be written.
        """
        self._writer.wait()


def _own(group: Group, index: int, at: Boundary) -> Callable[[], None]:
    """Copy the state of one run to the host. Return a function that writes its checkpoint."""
    position = position_of(at)
    own = Checkpoints(group.runs[index].workdir / CHECKPOINTS)
    snapshot = own.snapshot(position, at.state, group.record([index]), index)

    def write() -> None:
        with contextlib.closing(own):
            own.rename_damaged()
            # There is one if a process was killed after it and before the results.
            if own.latest() != position:
                snapshot()

    return write


class Rows:
    """Appends each epoch's rows to `metrics.jsonl`.

    Raises:
        MachineError: if a file cannot be written.
    """

    def __call__(self, group: Group) -> None:
        if group.at.metrics is None:
            return
        for i in group.alive:
            workdir = group.runs[i].workdir
            try:
                # Open the file each time: closing a file tries a failed write again.
                with open(workdir / METRICS, "a", encoding="utf-8") as metrics:
                    metrics.write(json_lines([structs.asdict(group.newest_row(i))]))
            except OSError as error:
                raise _unwritable(workdir, error) from error


class TensorBoard:
    """Writes each epoch's values for TensorBoard, once a second at most, in 2 % of the time.

    The library waits for the disk after each write, which can take longer than a short epoch. A
    kill loses the values that wait. So a run that resumes writes its history again, to a new file.

    Args:
        first: the group as it starts or resumes.
        imported: whether the library is imported. Until then the values wait.
        clock: returns seconds.

    Raises:
        MachineError: if a file cannot be written.
    """

    def __init__(
        self,
        first: Group,
        imported: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._imported, self._clock = first.runs, imported, clock
        self._next = clock()
        self._waiting = [(i, row) for i in range(len(self._runs)) for row in first.rows(i)]
        self._events = [
            Events(run.workdir / TENSORBOARD, first.position.epoch + 1) for run in first.runs
        ]

    def __call__(self, group: Group) -> None:
        if group.at.metrics is None:
            return
        self._waiting += [(i, group.newest_row(i)) for i in group.alive]
        if self._imported() and self._clock() >= self._next:
            self._write()

    def _write(self) -> None:
        """Write the values that wait, and set the time of the next write."""
        begun = self._clock()
        waiting, self._waiting = self._waiting, []
        for i in {i for i, _ in waiting}:
            rows = [row for index, row in waiting if index == i]
            try:
                self._events[i].add([(row.epoch, _tagged(row)) for row in rows])
            except OSError as error:
                raise _unwritable(self._runs[i].workdir, error) from error
        ended = self._clock()
        self._next = ended + max(1.0, 50 * (ended - begun))

    def close(self) -> None:
        """Write the values that wait, and close the files."""
        try:
            self._write()
        finally:
            for events in self._events:
                events.close()


def _unwritable(workdir: Path, error: OSError) -> MachineError:
    """Return the error of a run's directory that cannot be written."""
    return MachineError(f"{workdir}: cannot be written ({error.strerror})")


def _tagged(row: EpochRow) -> dict[str, float]:
    """Return a row's values by TensorBoard's names, which group them: `train/loss`, `val/loss`."""
    values = structs.asdict(row)
    del values["epoch"]
    return {re.sub("^(train|val)_", r"\1/", column): value for column, value in values.items()}


def is_stop(interrupts: Interrupts, group: Group, later: bool) -> bool:
    """Return whether all processes stop at this boundary, since one of them got a signal.

    All must call it.

    Args:
        interrupts: notes the signals.
        group: at its newest boundary.
        later: whether other groups train after this one.
    """
    if not of_any(interrupts.requested is not None):
        return False
    if group.at.metrics is None:
        return group.at.steps < group.program.full  # Else finish the epoch, which is quick.
    return group.at.epoch < group.last or later


class Stops:
    """Stops training at a boundary after a signal.

    Args:
        interrupts: notes the signals.
        saves: writes the checkpoint.
        later: whether other groups train after this one.
    """

    def __init__(self, interrupts: Interrupts, saves: Saves, later: bool) -> None:
        self._interrupts, self._saves, self._later = interrupts, saves, later

    def __call__(self, group: Group) -> None:
        if is_stop(self._interrupts, group, self._later):
            raise self.stop(group)

    def stop(self, group: Group) -> BaseException:
        """Save the group. Return the exception to raise."""
        requested = self._interrupts.requested or Terminated()
        epoch, steps = group.position
        if (epoch, steps) == (0, 0) or not self._saves.save(group):
            return requested
        if steps:
            where = f"in epoch {epoch + 1} of {group.last}, after {counted(steps, 'step')}"
        else:
            where = f"after epoch {epoch} of {group.last}"
        return Interrupted(
            f"Stopped {where}; its checkpoint is in {group.directory}.", exit_status(requested)
        )
