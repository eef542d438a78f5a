"""Estimate the time left of a command: compiling, epochs, evaluation, drawing."""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple


class Planned(NamedTuple):
    """A group of runs that a command trains.

    Attributes:
        program: what it shares with other groups, so that it is compiled once.
        runs: number of runs that train together.
        epochs: of each run.
    """

    program: Hashable
    runs: int
    epochs: int


class Remaining:
    """Measures the parts of a command so far, and estimates the seconds left from them.

    Args:
        groups: in the order of their training.
        evaluation: epochs that the evaluation of a run takes, until one is measured.
        drawing: seconds of drawing after the last group.
        clock: returns seconds.
    """

    def __init__(
        self,
        groups: Sequence[Planned],
        evaluation: float = 0.0,
        drawing: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        numbers: dict[Hashable, int] = {}  # Programs are large, and hashing them is slow.
        self._groups = [
            group._replace(program=numbers.setdefault(group.program, len(numbers)))
            for group in groups
        ]
        self._clock = clock
        self._evaluation, self._drawing = evaluation, drawing
        self._now = -1  # index of the current group
        self._since = clock()  # begin of the current part
        self._to_do = 0.0  # epochs of the current group
        self._compiling: dict[Hashable, float] = {}
        self._epoch: dict[Hashable, float] = {}  # an epoch of one run
        self._ending: float | None = None  # of one run
        self._ends = False
        self._ahead: float | None = None  # since when the next group's program compiles

    @property
    def later(self) -> bool:
        """Whether groups follow the current one."""
        return self._now + 1 < len(self._groups)

    def _lap(self) -> float:
        """Return the seconds of the part that ends now."""
        before, self._since = self._since, self._clock()
        return self._since - before

    def begin(self) -> None:
        """Note that the next group begins: it is compiled."""
        seconds = self._lap()
        if self._ends:
            self._ending = seconds / self._groups[self._now].runs
        self._now, self._ends, self._ahead = self._now + 1, False, None

    def ahead(self) -> None:
        """Note that the next group's program begins to compile, while this group trains."""
        self._ahead = self._clock()

    def train(self, epochs: float) -> None:
        """Note that the current group begins to train so many epochs."""
        self._compiling.setdefault(self._groups[self._now].program, self._lap())
        self._to_do = epochs

    def end(self) -> None:
        """Note that the current group has trained. Its evaluation follows."""
        self._lap()
        self._ends = True

    def seconds(self, epochs: float) -> float:
        """Return the estimated seconds left, if `epochs` of the current group are left.

        At least a part of an epoch is done.
        """
        group = self._groups[self._now]
        spent = self._clock() - self._since
        self._epoch[group.program] = spent / (self._to_do - epochs) / group.runs
        left = epochs * group.runs * self._epoch[group.program] + self._end(group)
        known = set(self._compiling)
        hidden = 0.0 if self._ahead is None else self._clock() - self._ahead + left
        for later in self._groups[self._now + 1 :]:
            compiling = 0.0 if later.program in known else _of(self._compiling, later.program)
            left += max(0.0, compiling - hidden)
            left += later.epochs * later.runs * _of(self._epoch, later.program) + self._end(later)
            known.add(later.program)
            hidden = 0.0
        return left + self._drawing

    def _end(self, group: Planned) -> float:
        """Return the seconds from a group's last epoch to the next group."""
        ending = self._ending
        if ending is None:
            ending = self._evaluation * _of(self._epoch, group.program)
        return ending * group.runs


def _of(measured: dict[Hashable, float], program: Hashable) -> float:
    """Return the value of a program. That of a new one is the mean of the others."""
    return measured.get(program, sum(measured.values()) / len(measured))
