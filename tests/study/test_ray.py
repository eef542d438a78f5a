"""Workers of a Ray cluster train the study that one process trains."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import SoftFileLease

from cifar_jax.main import main

RUN = ["--val-examples", "15", "--batch-size", "5", "--epochs", "4", "--arms", "none"]
STUDY = [*RUN, "--seeds", "3", "--threads", "1", "--no-demo", "--checkpoint-every", "0.001"]


def start(folder: Path, workdir: Path, *flags: str) -> subprocess.Popen[str]:
    command = ["study", "--dataset", str(folder), *STUDY, "--workdir", str(workdir), *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "cifar_jax.main", *command],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_worker(driver: subprocess.Popen[str], workdir: Path) -> None:
    """Kill the worker that trains the first run, after a checkpoint and before the result."""
    run = workdir / "none" / "seed42"
    while not list(run.glob("checkpoints/*")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.01)
    assert not (run / "results.json").exists(), "it trains too fast to be killed"
    owner = SoftFileLease(run / "lock").owner
    assert owner is not None
    assert owner.pid != driver.pid
    os.kill(owner.pid, signal.SIGKILL)


def contents(workdir: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(workdir.rglob("predictions.npz")):
        for name, values in np.load(path).items():
            found[f"{path.parent.name} {name}"] = values
    return found


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.usefixtures("cache", "blank_figures")
def test_a_killed_worker_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    """Two workers train three runs. One is killed, and its run resumes in another."""
    driver = start(folder, tmp_path / "ray", "--engine", "ray")
    kill_worker(driver, tmp_path / "ray")
    said, error = driver.communicate(timeout=400)
    assert driver.returncode == 0, error
    assert "none seed 42: lost its worker (WorkerCrashedError); another one resumes" in said
    assert (tmp_path / "ray" / "report.html").exists()
    alone = start(folder, tmp_path / "alone")
    _, error = alone.communicate(timeout=400)
    assert alone.returncode == 0, error
    expected, found = contents(tmp_path / "alone"), contents(tmp_path / "ray")
    assert found.keys() == expected.keys()
    assert len(found) >= 3
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_without_ray_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["study", "--engine", "ray"]) == 2
    assert "pip install 'cifar_jax[ray]'" in capsys.readouterr().err
    assert main(["study", "--engine", "ray", "--share", "0/2"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
