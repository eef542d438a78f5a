"""Full disks, missing permission, vanished directories, other processes, no memory, odd clocks."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from commands import last_of_each
from faulty import FLAGS, outcome

from cifar_jax.commands import study_groups
from cifar_jax.lock import locked
from cifar_jax.main import main
from cifar_jax.runner import checkpoint, checkpoint_files, training
from cifar_jax.runner.group import Group
from cifar_jax.runner.hooks import Saves
from cifar_jax.storage import temporary_directory

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")


def train(folder: Path, workdir: Path, *flags: str) -> int:
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, "--epochs", "4"]
    return main(last_of_each([*argv, *flags]))


def study(folder: Path, workdir: Path) -> int:
    flags = [flag for flag in FLAGS if flag != "--bn"]
    argv = ["study", "--dataset", str(folder), "--workdir", str(workdir), *flags]
    return main([*argv, "--epochs", "1", "--seeds", "2", "--arms", "batch"])


def one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """Standard error is one line of the program, with these parts in it."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("cifar_jax: error: ")
    for part in parts:
        assert part in said


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run: Path, cache: None) -> dict:
    """The outcome of a run of four epochs."""
    return outcome(undisturbed_run)


# --- disks ---------------------------------------------------------------------------------------


def mount(*options: str) -> None:
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.8 MB: room for two checkpoints, not for three."""
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("a small disk needs root and mount")
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(path))
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017
    finally:
        os.close(handle)


@pytest.mark.usefixtures("each_epoch")
def test_a_full_disk_is_one_line_and_the_checkpoints_are_whole(
    folder: Path, disk: Path, undisturbed: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = disk / "w"
    assert train(folder, workdir) == 1
    one_line(capsys, f"{workdir}/checkpoints", "epoch 3 cannot be written", "No space left")
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2"]
    assert checkpoint_files.newest_intact(workdir / "checkpoints") == (2, 0)
    assert train(folder, workdir, "--resume") == 1
    one_line(capsys, "No space left")
    mount("-o", "remount,size=64m", str(disk))
    assert train(folder, workdir, "--resume") == 0
    assert outcome(workdir) == undisturbed


def test_a_disk_that_is_full_from_the_start(
    folder: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(disk / "filler")
    assert train(folder, disk / "w") == 1
    one_line(capsys, "No space left")
    assert study(folder, disk / "s") == 1
    one_line(capsys, "No space left")
    monkeypatch.setenv("CIFAR_JAX_CACHE", str(disk / "cache"))
    assert train(folder, disk / "w") == 1
    one_line(capsys, f"{disk}/cache: the cache directory cannot be written (No space left")


def test_a_read_only_disk_is_one_line(
    folder: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mount("-o", "remount,size=64m", str(disk))
    assert train(folder, disk / "w", "--epochs", "1") == 0
    assert study(folder, disk / "s") == 0
    mount("-o", "remount,ro", str(disk))
    capsys.readouterr()
    for command in (
        lambda: train(folder, disk / "w", "--resume"),
        lambda: train(folder, disk / "new"),
        lambda: study(folder, disk / "s"),
        lambda: main(["report", "--workdir", str(disk / "s")]),
    ):
        assert command() in (1, 2)
        one_line(capsys, str(disk))
    # Reading needs no permission to write.
    assert main(["evaluate", "--checkpoint", str(disk / "w")]) == 0


@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_what_the_disk_says_is_passed_on(
    folder: Path,
    tmp_path: Path,
    reason: OSError,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: Path) -> None:
        raise reason

    monkeypatch.setattr(checkpoint, "seal", refuse)
    assert train(folder, tmp_path / "w") == 1
    one_line(capsys, "epoch 4 cannot be written", str(reason.strerror))
    assert list((tmp_path / "w" / "checkpoints").iterdir()) == []


def test_a_directory_that_vanishes_is_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def save_and_lose(self: Saves, group: Group) -> None:
        if group.position == (2, 0) and self.save(group):
            shutil.rmtree(tmp_path / "w")

    monkeypatch.setattr(Saves, "__call__", save_and_lose)
    assert train(folder, tmp_path / "w") == 1
    one_line(capsys, str(tmp_path / "w"), "No such file or directory")
    assert not (tmp_path / "w").exists()


def test_a_study_that_is_moved_while_it_runs_trains_no_more(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def move(*_: Any) -> list[str]:
        os.rename(tmp_path / "s", tmp_path / "moved")
        return []

    monkeypatch.setattr(study_groups, "_train_group", move)
    assert study(folder, tmp_path / "s") == 1
    one_line(capsys, f"{tmp_path}/s: was moved or removed while the study ran")
    assert not (tmp_path / "s").exists()


# --- other processes -----------------------------------------------------------------------------


def test_a_directory_in_use_names_its_holder(
    folder: Path, tmp_path: Path, undisturbed: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "w"
    workdir.mkdir()
    with locked(workdir):
        assert train(folder, workdir) == 2
        one_line(capsys, f"{workdir}: in use by process {os.getpid()} on ")
        assert study(folder, workdir) == 2
        one_line(capsys, "in use by process")
    assert list(workdir.iterdir()) == []
    assert train(folder, workdir) == 0
    assert outcome(workdir) == undisturbed
    with locked(workdir):
        assert main(["evaluate", "--checkpoint", str(workdir)]) == 0


def test_a_study_leaves_out_a_run_in_use(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "s"
    assert study(folder, workdir) == 0
    (workdir / "batch/seed3/results.json").unlink()
    capsys.readouterr()
    with locked(workdir / "batch/seed3"):
        assert study(folder, workdir) == 1
    assert f"{workdir}/batch/seed3: in use by process" in capsys.readouterr().err
    with locked(workdir):
        assert main(["report", "--workdir", str(workdir)]) == 2
    one_line(capsys, f"{workdir}: in use by process")
    left = workdir / "batch/seed3/.writing-training_curves.png-a"  # of a killed process
    left.write_text("")
    assert study(folder, workdir) == 0
    left.write_text("")
    assert study(folder, workdir) == 0
    assert not left.exists()
    assert not list(workdir.rglob("lock"))


HOLD = """
import sys, time
from pathlib import Path
from cifar_jax.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Exception, match=f"in use by process {process.pid} on"):
            locked(tmp_path).__enter__()
        process.send_signal(signal.SIGKILL)
    assert f"pid={process.pid}\n" in (tmp_path / "lock").read_text()
    (tmp_path / ".writing-results.json-abc").write_text("half")
    (tmp_path / "checkpoints" / ".writing-3").mkdir(parents=True)
    with locked(tmp_path):
        assert f"pid={os.getpid()}\n" in (tmp_path / "lock").read_text()
    assert [p.name for p in tmp_path.rglob("*")] == ["checkpoints"]


def test_the_lock_of_a_dead_machine_is_taken_over_when_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can ask another machine whether its process lives, so the lock's age decides."""
    monkeypatch.setattr("cifar_jax.lock.LEASE", 0.4)
    monkeypatch.setattr("cifar_jax.lock.BEAT", 0.1)
    with locked(tmp_path):
        dead = (tmp_path / "lock").read_text()
    (tmp_path / "lock").write_text(re.sub("host=.*", "host=elsewhere", dead))
    begun = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - begun >= 0.4
    assert "on elsewhere; waiting 0 s, if it is dead" in capsys.readouterr().err


def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path):
        pass
    with temporary_directory(tmp_path) as path:
        assert path.is_dir()


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """Only what nobody holds any more is removed, whatever the clock says."""
    dead = tmp_path / ".writing-dead"
    dead.mkdir()
    with temporary_directory(tmp_path) as first:
        os.utime(first, (0, 0))
        assert not dead.exists()
        with temporary_directory(tmp_path) as second:
            assert first.is_dir()
            assert second != first
    assert list(tmp_path.iterdir()) == []


# --- memory --------------------------------------------------------------------------------------


def exhaust_device(*_: object, **__: object) -> None:
    jnp.zeros((1 << 50,), jnp.uint8)


def exhaust_host(*_: object, **__: object) -> None:
    bytearray(1 << 60)


@pytest.mark.parametrize("exhaust", [exhaust_device, exhaust_host])
def test_out_of_memory_says_which_settings_to_lower(
    folder: Path,
    tmp_path: Path,
    exhaust: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "boundaries", lambda *_: (exhaust() for _ in range(1)))
    for command in (train, study):
        assert command(folder, tmp_path / command.__name__) == 1
        settings = "lower --batch-size or --seed-parallelism, or use --pipeline stream"
        one_line(capsys, "out of memory on the ", settings)


# --- clocks --------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(
    folder: Path, tmp_path: Path, undisturbed: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(10**9))
    real = time.time

    def jumping() -> float:
        """A year back or forth at every look."""
        return real() + (-1) ** next(jumps) * 365 * 86400.0

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    workdir = tmp_path / "w"
    assert train(folder, workdir, "--epochs", "2") == 0
    assert train(folder, workdir, "--resume") == 0
    assert outcome(workdir) == undisturbed
    results = json.loads((workdir / "results.json").read_text())
    assert all(0 < row["seconds"] < 60 for row in results["history"])
    assert 0 < results["compile_seconds"] < 600
