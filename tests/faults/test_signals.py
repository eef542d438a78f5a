"""SIGTERM and Ctrl-C: what is kept, how long it takes, and the exit status."""

import signal
import threading
import time

import pytest
from runs import FLAGS, INT, TERM, bits, history_of, kept, newest_record, signalled, train

from cifar_jax.interrupt import Interrupts, Terminated, apart, exit_status
from cifar_jax.main import main

pytestmark = pytest.mark.usefixtures("cache")


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


def test_handlers_are_put_back_and_errors_come_through():
    before = [signal.getsignal(s) for s in (INT, TERM)]
    with Interrupts(lambda stop: None) as interrupts, pytest.raises(ZeroDivisionError):
        interrupts.run(lambda: 1 // 0)
    assert [signal.getsignal(s) for s in (INT, TERM)] == before
    assert apart(lambda: 7) == 7


def test_sigterm_saves_and_the_resumed_run_is_bitwise_the_same(folder, tmp_path):
    done = signalled(
        folder, tmp_path / "w", ("images/s", TERM), flags=("--bn", "--epochs", "100000")
    )
    assert done.returncode == 143
    assert "SIGTERM: finishing this epoch and its checkpoint, for at most 25 s" in done.stdout
    assert "--resume" in done.stderr
    assert done.stderr.count("\n") == 1
    last = kept(tmp_path / "w")[-1]
    assert len(newest_record(tmp_path / "w")["history"]) == last
    argv = ["--dataset", str(folder), *FLAGS, "--bn", "--epochs", str(last + 1)]
    assert main([*argv, "--workdir", str(tmp_path / "w"), "--resume"]) == 0
    assert main([*argv, "--workdir", str(tmp_path / "whole")]) == 0
    assert bits(tmp_path / "w") == bits(tmp_path / "whole")


def test_without_grace_the_epoch_is_discarded(folder, tmp_path):
    flags = ("--epochs", "100000", "--grace", "0")
    done = signalled(folder, tmp_path / "w", ("images/s", TERM), flags=flags)
    assert done.returncode == 143
    assert "Traceback" not in done.stderr
    last = kept(tmp_path / "w")[-1]
    assert len(newest_record(tmp_path / "w")["history"]) == last


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
