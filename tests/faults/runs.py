"""Whole runs as processes, and everything of them that must be bitwise the same."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import small
from commands import last_of_each

from cifar_jax.runner.checkpoint import Checkpoints

FLAGS = ("--val-examples", "20", "--batch-size", "16", "--decay-every", "2", "--seed", "3")
CLOCK = ("seconds", "images_per_second")


def command(folder: Path, workdir: Path, *flags: str) -> list[str]:
    """A training of the tiny image folder."""
    start = [sys.executable, small.__file__, "--dataset", str(folder)]
    return [*start, "--workdir", str(workdir), *last_of_each([*FLAGS, *flags])]


def train(
    folder: Path, workdir: Path, *flags: str, cores: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own, on so many cores, with these environment variables."""
    argv = command(folder, workdir, *flags)
    if cores is not None:
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        argv = ["taskset", "-c", ",".join(map(str, allowed)), *argv]
    env = {**os.environ, **environment}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)


def signalled(
    folder: Path, workdir: Path, *sent: tuple[str, int], flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Train until it says something, then send a signal; and so on."""
    argv = command(folder, workdir, *flags)
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    timer = threading.Timer(240, process.kill)
    timer.start()
    lines, left = [], list(sent)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if left and left[0][0] in line:
                process.send_signal(left.pop(0)[1])
        error = process.communicate()[1]
    finally:
        timer.cancel()
    return subprocess.CompletedProcess(argv, process.returncode, "".join(lines), error)


def results_of(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def history_of(workdir: Path) -> list[dict[str, float]]:
    """The history without wall-clock times."""
    rows = results_of(workdir)["history"]
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]


def kept(workdir: Path) -> list[int]:
    """Epochs of the checkpoints of a run."""
    found = (workdir / "checkpoints").glob("[0-9]*")
    return sorted(int(p.name) for p in found if p.name.isdigit())


def bits(workdir: Path) -> tuple[list[dict[str, float]], bytes]:
    """History and logits of a finished run."""
    with np.load(workdir / "predictions.npz", allow_pickle=False) as predictions:
        return history_of(workdir), predictions["logits"].tobytes()


def newest_record(workdir: Path) -> dict[str, Any]:
    """The record of the run in the newest checkpoint; it must be whole."""
    checkpoints = Checkpoints(workdir / "checkpoints", create=False)
    try:
        return checkpoints.read_record()["runs"][0]
    finally:
        checkpoints.close()


TERM, INT = signal.SIGTERM, signal.SIGINT
