"""Hooks: each alone, on a group of two runs whose numbers are given."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from msgspec import structs
from tensorboardX.proto.event_pb2 import Event, SessionLog

from cifar_jax.config.settings import Config, TrainingConfig
from cifar_jax.core.train import Metrics
from cifar_jax.errors import MachineError
from cifar_jax.runner.boundaries import Boundary
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.runner.console import Display
from cifar_jax.runner.group import EPOCH, Divergence, Group, Run, from_rows, to_rows
from cifar_jax.runner.hooks import (
    Bar,
    Divergences,
    Interrupted,
    Lines,
    Rows,
    Saves,
    Stops,
    TensorBoard,
)
from cifar_jax.runner.programs import CompiledEpoch
from cifar_jax.runner.remaining import Planned, Remaining
from cifar_jax.runner.results import EpochRow, GroupRecord, Unfinished
from cifar_jax.runner.signals import Interrupts, Terminated
from cifar_jax.runner.tensorboard import Events
from cifar_jax.runner.writer import Writer
from cifar_jax.study.definition import make_run

LAST = 3


class State:
    """What hooks read of a state."""

    def __init__(self, *bad_step: int) -> None:
        self.bad_step = np.array(bad_step or (-1, -1))


def metrics(val_loss: float = 1.0, bad_step: int = -1) -> Metrics:
    """Of both runs; the second has this validation loss and this bad step."""
    ones = np.ones(2, np.float32)
    loss = np.array([1.0, val_loss], np.float32)
    return Metrics(ones / 2, ones / 4, loss, ones / 8, ones / 100, np.array([-1, bad_step]))


def within(epoch: int, steps: int, *bad_step: int) -> Boundary:
    return Boundary(State(*bad_step), epoch, steps, 0.5)


def end(epoch: int, **given: Any) -> Boundary:
    return Boundary(State(), epoch, 4, 2.0, metrics(**given))


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """Before its first step; four steps an epoch, three of them full batches."""
    runs = []
    for seed in (0, 1):
        workdir = tmp_path / "study" / "batch" / f"seed{seed}"
        workdir.mkdir(parents=True)
        config = Config(training=TrainingConfig(epochs=LAST, seed=seed))
        runs.append(make_run(config, None, workdir, f"batch seed {seed}"))
    program = CompiledEpoch(3, 4, None, None, None)
    records = tuple(made_up.training(run.config) for run in runs)
    history = np.zeros((2, 0), EPOCH)
    return Group(tuple(runs), records, program, None, 20, within(1, 0), history)


def advance(group: Group, hook: Any, *boundaries: Boundary) -> None:
    for at in boundaries:
        group.advance(at)
        hook(group)


class Shown(Display):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.done: list[tuple[float, int]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, description: str, done: float, total: int, *, plain: bool = True) -> None:
        self.done.append((done, total))


class Checkpoints:
    """Notes what is saved, as soon as `allowed` is set."""

    def __init__(self) -> None:
        self.saved: list[tuple[Position, GroupRecord]] = []
        self.allowed = threading.Event()
        self.allowed.set()

    def snapshot(self, position: Position, state: State, record: GroupRecord) -> Callable[[], None]:
        def write() -> None:
            self.allowed.wait()
            self.saved.append((position, record))

        return write

    @property
    def positions(self) -> list[Position]:
        return [position for position, _ in self.saved]


def test_the_history_of_a_group_has_the_shortest_decimals_and_half_the_time(group: Group) -> None:
    group.advance(within(1, 2))
    assert group.rows(0) == ()
    group.advance(end(1))
    (row,) = group.rows(1)
    assert row == EpochRow(
        epoch=1,
        train_loss=0.5,
        train_accuracy=0.25,
        val_loss=1.0,
        val_accuracy=0.125,
        seconds=1.0,
        learning_rate=0.01,
        images_per_second=20.0,
    )
    assert [type(value) for value in structs.astuple(row)] == [int, *[float] * 7]
    assert to_rows(from_rows([row])) == (row,)


@pytest.mark.parametrize(
    ("given", "step"), [({"val_loss": np.nan}, None), ({"val_loss": np.inf, "bad_step": 2}, 3)]
)
def test_a_run_that_diverges_keeps_the_rows_before(
    group: Group, given: dict[str, Any], step: int | None
) -> None:
    for at in (end(1), end(2, **given), end(3, **given)):
        group.advance(at)
    assert group.diverged == {1: Divergence(2, step)}
    assert [len(group.rows(i)) for i in (0, 1)] == [3, 1]
    assert group.alive == [0]
    assert group.newest_row(0).epoch == 3


def test_the_bar_moves_between_steps(group: Group) -> None:
    shown = Shown()
    advance(group, Bar(shown), within(1, 2), end(1), within(2, 3))
    assert shown.done == [(0.5, 3), (1, 3), (1.75, 3)]


def test_the_bar_is_full_only_after_validation(group: Group) -> None:
    """Without a partial batch the full batches are all steps."""
    group.program = CompiledEpoch(4, 4, None, None, None)
    shown = Shown()
    advance(group, Bar(shown), within(LAST, 4), end(LAST))
    assert shown.done == [(LAST - 0.2, LAST), (LAST, LAST)]


def test_a_line_an_epoch_and_run_with_the_time_left(group: Group) -> None:
    shown = Shown()
    clock = Clock()
    remaining = Remaining([Planned("a", 2, LAST), Planned("a", 1, 10)], clock=clock)
    remaining.begin()
    remaining.train(LAST)
    lines = Lines(shown, remaining)
    for clock.now, at in ((1, within(1, 2)), (2, end(1)), (4, end(2, val_loss=np.nan))):
        advance(group, lines, at)
    assert [line.split("  ")[0] for line in shown.lines] == [
        "batch seed 0",
        "batch seed 1",
        "batch seed 0",
    ]
    assert "epoch 1/3" in shown.lines[0]
    # A second an epoch and run: two epochs of two runs, and ten later ones.
    assert [line.split()[-1] for line in shown.lines] == ["0:14", "0:14", "0:12"]


def test_a_divergence_is_reported_once_with_the_state_before_its_epoch(group: Group) -> None:
    seen = []
    hook = Divergences(lambda *found: seen.append(found), group)
    bad = {"val_loss": np.nan, "bad_step": 0}
    advance(group, hook, within(1, 2), end(1), within(2, 3), end(2, **bad), end(3, **bad))
    ((index, found, before),) = seen
    assert (index, found, before.epoch) == (1, Divergence(2, 1), 1)
    assert before.metrics is not None


class Clock:
    """Shows the seconds that it is given."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def saves_of(group: Group, checkpoints: Checkpoints, clock: Clock | None = None) -> Saves:
    return Saves(checkpoints, Writer(), group, 30.0, clock or Clock())


def test_a_checkpoint_where_it_is_asked_for(group: Group) -> None:
    checkpoints = Checkpoints()
    saves = saves_of(group, checkpoints)
    assert saves.save(group)  # The start needs none.
    advance(group, saves, end(1))
    assert saves.save(group)
    advance(group, saves, within(2, 1))
    assert saves.save(group)
    assert saves.save(group)  # Once.
    assert checkpoints.positions == [(1, 0), (1, 1)]
    record = checkpoints.saved[1][1]
    assert [run.name for run in record.runs] == ["batch/seed0", "batch/seed1"]
    assert [run.settings.training.seed for run in record.runs] == [0, 1]
    assert [len(run.history) for run in record.runs] == [1, 1]
    assert record.unfinished == Unfinished(steps=1, seconds=0.25)
    assert checkpoints.saved[0][1].unfinished is None


@pytest.mark.parametrize(
    ("seconds", "saved"),
    [
        # Short epochs: at the first end after 30 s.
        ({9: within(1, 2), 20: end(1), 31: within(2, 2), 40: end(2)}, [(2, 0)]),
        ({29: end(1), 59: end(2)}, [(2, 0)]),
        # Long epochs: within them, and at each end.
        ({29: within(1, 1), 31: within(1, 2), 50: within(1, 3), 60: end(1)}, [(0, 2), (1, 0)]),
        ({60: end(1), 89: within(2, 1), 90: within(2, 2)}, [(1, 0), (1, 2)]),
        # After the last epoch each run is saved.
        ({10: end(1), 20: end(2), 60: end(LAST)}, []),
    ],
)
def test_checkpoints_by_the_clock(
    group: Group, seconds: dict[float, Boundary], saved: list[tuple[int, int]]
) -> None:
    checkpoints, clock = Checkpoints(), Clock()
    saves = saves_of(group, checkpoints, clock)
    for clock.now, at in seconds.items():
        advance(group, saves, at)
        saves.wait()
    assert checkpoints.positions == saved


def test_one_checkpoint_is_written_at_a_time_and_training_does_not_wait(group: Group) -> None:
    checkpoints, clock = Checkpoints(), Clock()
    saves = saves_of(group, checkpoints, clock)
    checkpoints.allowed.clear()
    clock.now = 40
    advance(group, saves, end(1))
    clock.now = 80
    advance(group, saves, within(2, 1))  # The first is still being written.
    assert checkpoints.positions == []
    checkpoints.allowed.set()
    saves.wait()
    clock.now = 81
    advance(group, saves, end(2))
    saves.wait()
    assert checkpoints.positions == [(1, 0), (2, 0)]


class Full(Checkpoints):
    """On a full disk."""

    def snapshot(self, position: Position, state: State, record: GroupRecord) -> Callable[[], None]:
        def write() -> None:
            raise MachineError("the disk is full")

        return write


def test_a_checkpoint_that_cannot_be_written_ends_training_at_the_next_boundary(
    group: Group,
) -> None:
    clock, writer = Clock(), Writer()
    saves = Saves(Full(), writer, group, 30.0, clock)
    clock.now = 40
    advance(group, saves, end(1))
    while writer.busy:
        time.sleep(0.01)
    with pytest.raises(MachineError, match="the disk is full"):
        advance(group, saves, end(2))


def test_a_checkpoint_that_cannot_be_written_at_a_stop_is_an_error(group: Group) -> None:
    saves = saves_of(group, Full())
    group.advance(end(1))
    with pytest.raises(MachineError, match="the disk is full"):
        saves.save(group)


def test_steps_in_which_every_run_is_lost_are_not_saved(group: Group) -> None:
    checkpoints = Checkpoints()
    saves = saves_of(group, checkpoints)
    group.advance(within(1, 1, 0, 0))
    assert not saves.save(group)
    group.advance(within(1, 2, -1, 0))
    assert saves.save(group)
    advance(group, saves, end(1, val_loss=np.nan))
    assert saves.save(group)
    advance(group, saves, within(2, 1, 0, -1))
    assert not saves.save(group)  # One diverges now, the other did before.
    assert checkpoints.positions == [(0, 2), (1, 0)]


def test_rows_are_appended_as_json_lines(group: Group) -> None:
    advance(group, Rows(), within(1, 2), end(1), end(2, val_loss=np.nan))
    for i, run in enumerate(group.runs):
        lines = (run.workdir / "metrics.jsonl").read_text().splitlines()
        assert [EpochRow(**json.loads(line)) for line in lines] == list(group.rows(i))
    (group.runs[0].workdir / "metrics.jsonl").unlink()
    group.runs[0].workdir.rmdir()
    with pytest.raises(MachineError, match=f"{group.runs[0].workdir}: cannot be written"):
        advance(group, Rows(), end(3))


def events_of(run: Run) -> list[Event]:
    (path,) = (run.workdir / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_tensorboard_has_a_tab_for_each_split(group: Group) -> None:
    hook = TensorBoard(group)
    advance(group, hook, within(1, 2), end(1))
    hook.close()
    tags = {value.tag for event in events_of(group.runs[1]) for value in event.summary.value}
    assert tags == {
        *("train/loss", "train/accuracy", "val/loss", "val/accuracy"),
        *("seconds", "learning_rate", "images_per_second"),
    }


@pytest.mark.parametrize("imported_at", [2, 4])
def test_tensorboard_gets_the_epochs_before_its_import(group: Group, imported_at: int) -> None:
    hook = TensorBoard(group, lambda: group.at.epoch >= imported_at)
    advance(group, hook, end(1), end(2), end(3))
    hook.close()
    for run in group.runs:
        assert [event.step for event in events_of(run) if event.summary.value] == [1, 2, 3]


def test_tensorboard_is_written_once_a_second_at_most(group: Group) -> None:
    now = [0.0]
    hook = TensorBoard(group, clock=lambda: now[0])
    written = []
    for epoch, now[0] in enumerate((0.0, 0.4, 0.8, 1.2, 1.6), 1):
        advance(group, hook, end(epoch))
        written.append(sum(bool(event.summary.value) for event in events_of(group.runs[0])))
    hook.close()
    assert written == [1, 1, 1, 4, 4]
    steps = [event.step for event in events_of(group.runs[0]) if event.summary.value]
    assert steps == [1, 2, 3, 4, 5]


def test_tensorboard_gets_the_history_again_after_a_kill(group: Group) -> None:
    """TensorBoard ignores earlier files from the step of the log's start on."""
    killed = TensorBoard(group, imported=lambda: False)
    advance(group, killed, end(1), end(2))
    hook = TensorBoard(group)
    advance(group, hook, end(3))
    hook.close()
    _, start, *rows = events_of(group.runs[1])  # The first is the format's version.
    assert (start.session_log.status, start.step) == (SessionLog.START, 1)
    assert [event.step for event in rows] == [1, 2, 3]


def test_tensorboard_takes_at_most_two_percent_of_the_time(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, took = [0.0], [0.0]

    def slow(*_: object) -> None:
        now[0] += 1.5
        took[0] += 1.5

    hook = TensorBoard(group, clock=lambda: now[0])
    monkeypatch.setattr(Events, "add", slow)
    for epoch in range(1, 1001):
        advance(group, hook, end(epoch))
        now[0] += 1.0
    assert 0.01 < took[0] / now[0] <= 0.025


def test_tensorboard_does_not_import_torch(tmp_path: Path) -> None:
    """An import of PyTorch takes seconds, and tensorboardX tries it."""
    (tmp_path / "torch.py").write_text("print('imported')")
    code = (
        "from pathlib import Path; from cifar_jax.runner.tensorboard import Events; "
        "Events(Path('events'), 1).add([(1, {'loss': 1.0})])"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def stops_of(group: Group, later: bool = False) -> tuple[Stops, Checkpoints, Interrupts]:
    interrupts, checkpoints = Interrupts(lambda stop: None), Checkpoints()
    return Stops(interrupts, saves_of(group, checkpoints), later), checkpoints, interrupts


def test_a_signal_stops_between_two_steps(group: Group) -> None:
    stops, checkpoints, interrupts = stops_of(group)
    advance(group, stops, within(1, 1))
    interrupts.requested = Terminated()
    with pytest.raises(Interrupted, match="Stopped in epoch 1 of 3, after 2 steps") as stopped:
        advance(group, stops, within(1, 2))
    assert stopped.value.status == 143
    study = group.runs[0].workdir.parents[1]
    assert f"its checkpoint is in {study}." in str(stopped.value)
    assert checkpoints.positions == [(0, 2)]


def test_the_short_end_of_an_epoch_is_finished_first(group: Group) -> None:
    stops, checkpoints, interrupts = stops_of(group)
    interrupts.requested = KeyboardInterrupt()
    advance(group, stops, within(2, 3))
    with pytest.raises(Interrupted, match="Stopped after epoch 2 of 3;") as stopped:
        advance(group, stops, end(2))
    assert stopped.value.status == 130
    assert checkpoints.positions == [(2, 0)]


@pytest.mark.parametrize("later", [False, True])
def test_after_the_last_epoch_only_later_runs_are_stopped(group: Group, later: bool) -> None:
    stops, _, interrupts = stops_of(group, later)
    interrupts.requested = KeyboardInterrupt()
    if not later:
        advance(group, stops, end(LAST))
        return
    with pytest.raises(Interrupted, match=f"Stopped after epoch {LAST}"):
        advance(group, stops, end(LAST))


def test_what_has_no_checkpoint_is_lost(group: Group) -> None:
    stops, checkpoints, interrupts = stops_of(group)
    interrupts.requested = Terminated()
    assert stops.stop(group) is interrupts.requested
    group.advance(within(1, 1, 0, 0))
    assert stops.stop(group) is interrupts.requested
    assert checkpoints.positions == []
