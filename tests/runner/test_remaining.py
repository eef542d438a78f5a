"""The time left, against made-up commands whose every part has a known length."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from cifar_jax.runner.remaining import Planned, Remaining


@dataclass
class Arm:
    """Seconds of the parts of a run: compiling, an epoch, the end (evaluation, figures)."""

    name: str
    compiling: float
    epoch: float
    end: float


NONE = Arm("none", 20.0, 6.0, 4.0)
BATCH = Arm("batch", 26.0, 7.0, 4.5)
TINY = Arm("tiny", 30.0, 0.2, 2.0)
DRAWING = 5.0
CHECKPOINT = 1.5  # seconds that every fifth epoch takes longer


class Clock:
    """Shows `now`, which the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def command(groups: Sequence[tuple[Arm, int]], epochs: int) -> tuple[float, list[tuple]]:
    """The length of a command, and at the end of each epoch: the time and the estimate."""
    clock, seen, compiled = Clock(), [], set()
    planned = [Planned(arm.name, runs, epochs) for arm, runs in groups]
    begun = clock.now
    remaining = Remaining(planned, evaluation=0.5, drawing=DRAWING, clock=clock)
    for arm, runs in groups:
        remaining.begin()
        clock.now += arm.compiling if arm.name not in compiled else 0.3
        compiled.add(arm.name)
        remaining.train(epochs)
        for epoch in range(1, epochs + 1):
            clock.now += arm.epoch * runs + (CHECKPOINT if epoch % 5 == 0 else 0)
            seen.append((clock.now - begun, remaining.seconds(epochs - epoch)))
        remaining.end()
        clock.now += arm.end * runs
    clock.now += DRAWING
    return clock.now - begun, seen


@pytest.mark.parametrize(
    ("groups", "epochs"),
    [
        ([(NONE, 1)], 30),
        ([(NONE, 1), (BATCH, 1)] * 10, 30),
        ([(NONE, 10), (BATCH, 10)], 30),
        ([(NONE, 4), (BATCH, 4), (NONE, 2), (BATCH, 2)], 10),
        ([(NONE, 1), (BATCH, 1), (TINY, 1)] * 3, 4),
        ([(TINY, 10), (NONE, 10)], 30),
    ],
    ids=["run", "pairs", "two groups", "uneven", "three arms", "first is quick"],
)
def test_at_half_the_time_left_is_right_within_a_fifth(
    groups: list[tuple[Arm, int]], epochs: int
) -> None:
    total, seen = command(groups, epochs)
    at, left = min(seen, key=lambda one: abs(one[0] - total / 2))
    assert left == pytest.approx(total - at, rel=0.2)
    # Later it is as good, until only parts are left that were never measured.
    for at, left in seen:
        if total / 2 < at < 0.9 * total:
            assert left == pytest.approx(total - at, rel=0.2)


def test_what_is_not_an_epoch_counts() -> None:
    """Compiling of the later group takes longer than all epochs."""
    slow = Arm("slow", 300.0, 0.2, 30.0)
    total, seen = command([(Arm("first", 300.0, 0.2, 30.0), 1), (slow, 1)], 10)
    at, left = seen[9]
    assert left == pytest.approx(total - at, rel=0.2)


def test_a_resumed_group_counts_only_the_epochs_to_do() -> None:
    clock = Clock()
    remaining = Remaining([Planned("a", 2, 30)], clock=clock)
    remaining.begin()
    remaining.train(2.5)  # Epochs 28 to 30, the first half done before.
    clock.now += 3
    assert remaining.seconds(1) == pytest.approx(2)
    assert not remaining.later


def test_what_compiles_while_a_group_trains_is_not_waited_for() -> None:
    """The next program takes as long as the first to compile: 20 s, of which 12 s are hidden."""
    clock = Clock()
    remaining = Remaining([Planned("a", 1, 12), Planned("b", 1, 12)], clock=clock)
    remaining.begin()
    clock.now += 20
    remaining.ahead()
    remaining.train(12)
    clock.now += 6
    assert remaining.seconds(6) == pytest.approx(6 + (20 - 12) + 12)
