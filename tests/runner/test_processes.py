"""Several processes on this machine train what one trains, and stop if one of them is killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cifar_jax.main import main

DATA = ["--dataset", "synthetic", "--train-examples", "72", "--val-examples", "20"]
HOW = ["--epochs", "2", "--checkpoint-every", "0.001"]
TRAIN = [*DATA, *HOW, "--pipeline", "stream"]
# The report's CNN, but smooth. With ReLU and max pooling, rounding can choose another pixel, and
# then the same logits differ by 7e-3. In float64 that network's logits differ by 5e-16.
SMOOTH = """
import flax.linen as nn

import cifar_jax as cj
from cifar_jax.core.model import torch_init

class Smooth(cj.CNN):
    def block(self, x, index, train):
        layer = nn.Conv(self.widths[index - 1], (3, 3), **torch_init(9 * x.shape[-1]))
        x = nn.tanh(self.normalise(layer(x), index, train))
        return nn.avg_pool(x, (2, 2), (2, 2))

smooth = cj.Experiment(model=Smooth(norm="batch", activation=nn.tanh), batch_size=32)
arms = {"smooth": smooth}
"""


def command(workdir: Path, *flags: str) -> list[str]:
    """Arguments of the command line that train the smooth network."""
    file = workdir.parent / "smooth.py"
    file.write_text(SMOOTH)
    return ["train", str(file), *TRAIN, *flags, "--workdir", str(workdir)]


def start(workdir: Path, count: int, *flags: str) -> list[subprocess.Popen[str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = command(workdir, *flags, "--coordinator", address, "--processes", str(count))
    return [
        subprocess.Popen(
            [sys.executable, "-m", "cifar_jax.main", *common, "--process-id", str(i)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, error = process.communicate(timeout=400)
        assert process.returncode == 0, error


def kill_one(workdir: Path) -> tuple[float, str, int]:
    """Kill the second of two in an epoch. Return how the first ends: seconds, error, status."""
    first, second = start(workdir, 2)
    while not list(workdir.glob("checkpoints/0+*")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    second.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    _, error = first.communicate(timeout=100)
    second.communicate()
    return time.monotonic() - begun, error, first.returncode


def logits(workdir: Path) -> np.ndarray:
    found: np.ndarray = np.load(workdir / "predictions.npz")["logits"]
    return found


@pytest.mark.faults_long
@pytest.mark.usefixtures("cache", "blank_figures")
def test_two_processes_of_which_one_is_killed(tmp_path: Path) -> None:
    """The other stops and names it. Both resume, and end as one process does, up to rounding."""
    seconds, error, status = kill_one(tmp_path / "two")
    assert "process 1 on " in error
    assert "ended or did not answer, so this process ends" in error
    assert status == 1
    assert seconds < 20
    finish(start(tmp_path / "two", 2, "--resume"))
    assert main(command(tmp_path / "one")) == 0
    one, two = logits(tmp_path / "one"), logits(tmp_path / "two")
    np.testing.assert_allclose(two, one, atol=1e-5)


@pytest.mark.faults_long
@pytest.mark.usefixtures("cache", "blank_figures")
def test_the_number_of_processes_changes_only_the_last_bits(tmp_path: Path) -> None:
    """Resumed by two processes after a kill, the bits are those of two without a kill."""
    kill_one(tmp_path / "two")
    shutil.copytree(tmp_path / "two", tmp_path / "four")
    finish(start(tmp_path / "two", 2, "--resume"))
    finish(start(tmp_path / "undisturbed", 2))
    finish(start(tmp_path / "four", 4, "--resume"))
    two = logits(tmp_path / "two")
    assert np.array_equal(two, logits(tmp_path / "undisturbed"))
    np.testing.assert_allclose(logits(tmp_path / "four"), two, atol=1e-5)


def test_an_incomplete_place_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--coordinator", "localhost:1"]) == 2
    assert "--processes and --process-id: give all three" in capsys.readouterr().err
    assert main(["--coordinator", "localhost"]) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err
