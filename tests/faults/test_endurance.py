"""Long use: memory, open files and threads stay where they are."""

import gc
import os
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar_jax.commands.train import open_data
from cifar_jax.config.settings import Config, DataConfig, TrainingConfig
from cifar_jax.runner.console import Display
from cifar_jax.runner.hooks import Rows
from cifar_jax.runner.prepare import Prepared
from cifar_jax.runner.session import Session
from cifar_jax.runner.training import train_group
from cifar_jax.study.definition import make_run

pytestmark = [
    pytest.mark.usefixtures("cache", "small_cnn"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def usage() -> tuple[float, int, int]:
    """Resident memory in MB, open files, threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, threading.active_count()


def slope(memory: list[float]) -> float:
    """MB a sample, by least squares."""
    return float(np.polyfit(np.arange(len(memory)), memory, 1)[0])


def prepared_for(folder: Path, epochs: int) -> tuple[Prepared, Display]:
    config = Config(
        data=DataConfig(dataset=str(folder), val_examples=27),
        training=TrainingConfig(epochs=epochs, batch_size=16),
    )
    display = Display()
    return open_data(config, display), display


def soak_epochs(folder: Path, workdir: Path, epochs: int, monkeypatch) -> list[tuple]:
    """One run; usage after every tenth of it."""
    prepared, display = prepared_for(folder, epochs)
    samples = []
    write = Rows.__call__

    def counted(self, group):
        write(self, group)
        if group.at.metrics is not None and group.at.epoch % (epochs // 10) == 0:
            samples.append(usage())

    monkeypatch.setattr(Rows, "__call__", counted)
    train_group(Session(prepared, display), [make_run(prepared.config, None, workdir)])
    return samples


def soak_runs(folder: Path, root: Path, runs: int) -> list[tuple]:
    """Many runs in one process, one program; usage after every tenth."""
    prepared, display = prepared_for(folder, 1)
    session, samples = Session(prepared, display), []
    for seed in range(runs):
        training = replace(prepared.config.training, seed=seed)
        config = replace(prepared.config, training=training)
        workdir = root / str(seed)
        train_group(session, [make_run(config, None, workdir)])
        shutil.rmtree(workdir)
        if (seed + 1) % (runs // 10) == 0:
            samples.append(usage())
    return samples


def check_flat(samples: list[tuple], megabytes: float) -> None:
    """The first fifth is for caches to fill; then memory grows by less than this in all."""
    memory, files, threads = map(list, zip(*samples[2:], strict=True))
    grown = slope(memory) * (len(memory) - 1)
    print(f"memory {memory[0]:.0f} MB, {grown:+.1f} MB; files {files}; threads {threads}")
    assert grown < megabytes, memory
    assert max(files) - files[0] <= 2, files
    assert max(threads) - threads[0] <= 2, threads


def test_20_epochs(folder, tmp_path, monkeypatch):
    check_flat(soak_epochs(folder, tmp_path / "w", 20, monkeypatch), 60)


@pytest.mark.faults_long
def test_2000_epochs(folder, tmp_path, monkeypatch):
    check_flat(soak_epochs(folder, tmp_path / "w", 2000, monkeypatch), 100)


@pytest.mark.faults_long
def test_200_runs(folder, tmp_path):
    check_flat(soak_runs(folder, tmp_path, 200), 100)
