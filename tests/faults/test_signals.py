"""SIGTERM and Ctrl-C: what is kept, how long it takes, and the exit status."""

import io
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from commands import last_of_each
from runs import (
    FLAGS,
    INT,
    TERM,
    bits,
    history_of,
    kept,
    newest_record,
    results_of,
    signalled,
    train,
)

from cifar_jax.data.sources.contents import Contents, silent
from cifar_jax.data.sources.prepared import prepare
from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.errors import UserError, counted
from cifar_jax.main import main
from cifar_jax.runner import resume, training
from cifar_jax.runner.boundaries import boundaries
from cifar_jax.runner.programs import CompiledEpoch
from cifar_jax.runner.results import Unfinished
from cifar_jax.runner.signals import Interrupts, Terminated, exit_status, in_thread

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")


def raised_while(work, *signals: int, grace: float = 60.0) -> tuple[Interrupts, object]:
    """Run `work` under `Interrupts` with signals coming in meanwhile; what it gave or raised."""
    said: list[KeyboardInterrupt] = []

    def send() -> None:
        for signum in signals:
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident, signum)

    sender = threading.Thread(target=send)
    with Interrupts(said.append, grace) as interrupts:
        sender.start()
        try:
            outcome: object = interrupts.run(work)
        except KeyboardInterrupt as stop:
            outcome = stop
        sender.join()
    assert len(said) == 1
    return interrupts, outcome


def test_one_signal_waits_for_the_work():
    for signum, status in ((INT, 130), (TERM, 143)):
        interrupts, outcome = raised_while(lambda: time.sleep(0.6) or "done", signum)
        assert outcome == "done"
        assert exit_status(interrupts.requested) == status


def test_a_second_ctrl_c_stops_at_once_and_a_second_sigterm_does_not():
    begun = time.monotonic()
    _, outcome = raised_while(lambda: time.sleep(20), INT, INT)
    assert type(outcome) is KeyboardInterrupt
    assert time.monotonic() - begun < 5
    _, outcome = raised_while(lambda: time.sleep(1) or "done", TERM, TERM)
    assert outcome == "done"


def test_sigterm_waits_no_longer_than_its_grace():
    begun = time.monotonic()
    interrupts, outcome = raised_while(lambda: time.sleep(20), TERM, grace=0.5)
    assert isinstance(outcome, Terminated)
    assert 0.5 <= time.monotonic() - begun < 5
    assert exit_status(interrupts.requested) == 143


class _Signalling(io.RawIOBase):
    """A stream during whose first write Ctrl-C comes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        if not self.written:
            signal.raise_signal(INT)
        self.written += bytes(data)
        return len(data)


def test_a_signal_in_the_middle_of_a_line_of_output_is_told_after_it():
    raw = _Signalling()
    out = io.TextIOWrapper(io.BufferedWriter(raw), write_through=True)
    with Interrupts(lambda stop: print("interrupted", file=out, flush=True)) as interrupts:
        print("epoch 1", file=out, flush=True)
        interrupts.run(lambda: time.sleep(0.3))
    assert raw.written.split() == [b"epoch", b"1", b"interrupted"]
    assert type(interrupts.requested) is KeyboardInterrupt


def test_handlers_are_put_back_and_errors_come_through():
    before = [signal.getsignal(s) for s in (INT, TERM)]
    with Interrupts(lambda stop: None) as interrupts, pytest.raises(ZeroDivisionError):
        interrupts.run(lambda: 1 // 0)
    assert [signal.getsignal(s) for s in (INT, TERM)] == before
    assert in_thread(lambda: 7) == 7


def test_sigterm_saves_and_the_run_can_be_resumed(folder, tmp_path):
    done = signalled(
        folder, tmp_path / "w", ("images/s", TERM), flags=("--bn", "--epochs", "100000")
    )
    assert done.returncode == 143
    assert "--resume" in done.stderr
    assert done.stderr.count("\n") == 1
    last = kept(tmp_path / "w")[-1]
    assert len(newest_record(tmp_path / "w")["history"]) == last
    argv = ["--dataset", str(folder), *FLAGS, "--bn", "--epochs", str(last + 1)]
    assert main([*argv, "--workdir", str(tmp_path / "w"), "--resume"]) == 0
    assert len(results_of(tmp_path / "w")["history"]) == last + 1


def test_without_grace_the_steps_under_way_are_given_up(folder, tmp_path):
    flags = ("--epochs", "100000", "--grace", "0")
    done = signalled(folder, tmp_path / "w", ("images/s", TERM), flags=flags)
    assert done.returncode == 143
    assert "Traceback" not in done.stderr
    last = kept(tmp_path / "w")[-1]
    assert len(newest_record(tmp_path / "w")["history"]) == last


class Signals:
    """`boundaries` of one step a call; a signal comes at each of some places, (epoch, step)."""

    places: ClassVar[list[tuple[int, int]]] = []
    signum = TERM
    late = False

    def __call__(self, program, hyper, begin, last):
        for at in boundaries(program, hyper, begin, last, segment=0.0):
            here = at.epoch, at.steps
            if here in self.places[:1] and not self.late:
                self.send()
            yield at
            # Asked for the next: the host has had its turn.
            if here in self.places[:1] and self.late:
                self.send()

    def send(self) -> None:
        self.places.pop(0)
        os.kill(os.getpid(), self.signum)
        time.sleep(0.5)


@pytest.fixture
def signals(monkeypatch):
    """`Signals`, in place."""
    monkeypatch.setattr(training, "boundaries", Signals())
    monkeypatch.setattr(Signals, "places", [])
    return lambda name, value: monkeypatch.setattr(Signals, name, value)


def checkpoints_of(workdir) -> set[str]:
    return {p.name for p in (workdir / "checkpoints").iterdir()}


def argv_of(folder, workdir, *flags: str) -> list[str]:
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, "--bn", "--epochs", "2"]
    return last_of_each([*argv, *flags])


@pytest.fixture(scope="module")
def whole(folder, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("signals") / "whole"
    assert main(argv_of(folder, workdir)) == 0
    return bits(workdir)


def test_saved_between_two_steps(whole, folder, tmp_path, capsys, signals):
    """Again and again; the end is that of the undisturbed run, bit by bit."""
    signals("places", [(1, 1), (1, 2), (2, 2)])
    argv = argv_of(folder, tmp_path / "w", "--resume")
    for epoch, steps, names in ((1, 1, {"0+1"}), (1, 2, {"0+2"}), (2, 2, {"1+2"})):
        assert main(argv) == 143
        out, error = capsys.readouterr()
        assert "SIGTERM: finishing the current steps, for at most 25 s" in out
        assert f"Stopped in epoch {epoch} of 2, after {counted(steps, 'step')};" in error
        assert error.count("\n") == 1
        assert checkpoints_of(tmp_path / "w") == names
    assert main(["evaluate", "--checkpoint", str(tmp_path / "w")]) == 0
    assert "checkpoint after epoch 1 and 2 steps in" in capsys.readouterr().out
    assert main(last_of_each([*argv, "--epochs", "1"])) == 2
    assert "is already past epoch 1 and 2 steps" in capsys.readouterr().err
    assert main(argv) == 0
    assert "after epoch 1 and 2 steps" in capsys.readouterr().out
    assert checkpoints_of(tmp_path / "w") == {"2"}
    assert bits(tmp_path / "w") == whole
    assert all(row["seconds"] > 0 for row in results_of(tmp_path / "w")["history"])


def read_noise(*_):
    """Images of ten classes, 75 for training."""
    images = np.random.default_rng(0).integers(0, 256, (75, 32, 32, 3), np.uint8)
    labels = np.arange(75, dtype=np.int32) % 10
    return Contents(images, labels, images[:10], labels[:10], CIFAR10.classes)


def test_ctrl_c_saves_between_two_steps_of_an_epoch_streamed_from_records(
    tmp_path, capsys, signals
):
    records = prepare(tmp_path / "tfds", [], replace(CIFAR10, read=read_noise), silent)
    argv = argv_of(records, tmp_path / "w", "--pipeline", "stream")
    assert main(last_of_each([*argv, "--workdir", str(tmp_path / "whole")])) == 0
    signals("places", [(1, 2)])
    signals("signum", INT)
    capsys.readouterr()
    assert main(argv) == 130
    assert "and saving. Press Ctrl-C again to stop now without saving." in capsys.readouterr().out
    assert checkpoints_of(tmp_path / "w") == {"0+2"}
    assert main([*argv, "--resume"]) == 0
    assert bits(tmp_path / "w") == bits(tmp_path / "whole")


def test_steps_that_outlast_the_grace_are_given_up_but_not_those_before(
    whole, folder, tmp_path, signals
):
    signals("late", True)
    argv = argv_of(folder, tmp_path / "w", "--grace", "0", "--resume")
    for steps in (2, 3):  # The last time during the partial batch and validation.
        signals("places", [(2, steps)])
        assert main(argv) == 143
        assert checkpoints_of(tmp_path / "w") == {f"1+{steps}"}
    assert main(argv) == 0
    assert bits(tmp_path / "w") == whole


@pytest.mark.faults_long
def test_a_group_of_seeds_is_saved_between_two_steps(folder, tmp_path, signals):
    def study(name: str, *flags: str) -> int:
        argv = ["study", "--dataset", str(folder), "--workdir", str(tmp_path / name), *FLAGS]
        argv += ["--seeds", "2", "--epochs", "2", "--arms", "batch", "--seed-parallelism", "2"]
        return main(last_of_each([*argv, *flags]))

    assert study("whole") == 0
    signals("places", [(2, 1)])
    assert study("s") == 143
    runs = [Path("batch") / f"seed{seed}" for seed in (3, 4)]
    names = {p.name for p in (tmp_path / "s" / "groups" / "1").iterdir()}
    assert names == {"1+1"}
    assert not any((tmp_path / "s" / run / "checkpoints").exists() for run in runs)
    shutil.copytree(tmp_path / "s", tmp_path / "alone")
    for run in runs:
        assert main(["evaluate", "--checkpoint", str(tmp_path / "s" / run)]) == 0
    assert study("s") == 0
    for run in runs:
        assert bits(tmp_path / "s" / run) == bits(tmp_path / "whole" / run)
        assert checkpoints_of(tmp_path / "s" / run) == {"2"}
    assert not (tmp_path / "s" / "groups").exists()
    # Each alone resumes from the checkpoint of both.
    assert study("alone", "--seed-parallelism", "1") == 0
    for run in runs:
        found, wanted = (history_of(tmp_path / name / run) for name in ("alone", "whole"))
        assert found[0] == wanted[0]
        assert found[1]["train_loss"] == pytest.approx(wanted[1]["train_loss"], rel=3e-2)
    assert not (tmp_path / "alone" / "groups").exists()


@pytest.mark.parametrize(("step", "steps", "allowed"), [(6, 2, True), (5, 2, False), (8, 4, False)])
def test_a_record_that_contradicts_its_state_is_refused(tiny_state, step, steps, allowed):
    """An epoch has four steps here, three of them full batches; one epoch is finished."""
    program = CompiledEpoch(3, 4, None, None, None)
    state = tiny_state.replace(step=jnp.int32(step))
    part = Unfinished(steps=steps, seconds=0.5)
    start = resume.Start(state, (None,), 0.0, unfinished=part)
    if allowed:
        assert training.resumed_steps([start], program) == steps
        return
    with pytest.raises(UserError, match="--resume: the newest checkpoint does not fit"):
        training.resumed_steps([start], program)


def test_sigterm_while_compiling_leaves_nothing(folder, tmp_path):
    # What is said before compilation; the cache is empty, so it takes its time.
    cache = tmp_path / "cache"
    begun = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_JAX_CACHE", str(cache))
        done = signalled(folder, tmp_path / "w", ("parameters;", TERM))
    assert done.returncode == 143
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()
    assert time.monotonic() - begun < 120


@pytest.mark.faults_long
def test_many_signals_at_many_moments(folder, tmp_path):
    """Stopped over and over, by turns; the end is the run that was never stopped."""
    assert train(folder, tmp_path / "whole", "--epochs", "40").returncode == 0
    flags = ("--epochs", "40", "--resume")
    for number in range(12):
        signum = (TERM, INT)[number % 2]
        done = signalled(folder, tmp_path / "w", ("images/s", signum), flags=flags)
        assert done.returncode in (0, 128 + signum)
        if done.returncode == 0:
            break
    else:
        assert train(folder, tmp_path / "w", *flags).returncode == 0
    assert history_of(tmp_path / "w") == history_of(tmp_path / "whole")
    assert bits(tmp_path / "w") == bits(tmp_path / "whole")
