"""Crashes, damage, and what must be true after them."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from counting import counts

import cifar_jax
from cifar_jax.data.sources import cache
from cifar_jax.lock import locked
from cifar_jax.runner import checkpoint_files
from cifar_jax.storage import WRITING, read_sealed, sha256

# 48 images, three batches: without a partial batch the program compiles in half the time.
FLAGS = ("--bn", "--val-examples", "27", "--batch-size", "16", "--decay-every", "2", "--seed", "3")
_DYING = str(Path(__file__).with_name("dying.py"))
_LONGEST = 120.0  # seconds that a process may take


def _environment() -> dict[str, str]:
    """With this package, wherever the program lies that is run."""
    return {**os.environ, "PYTHONPATH": str(Path(cifar_jax.__file__).parents[1])}


def killed_at_write(count: int, root: Path, *command: str) -> bool:
    """Run `dying.py`; whether it was killed. Else it has ended well."""
    argv = [sys.executable, _DYING, str(count), str(root), *command]
    ended = subprocess.run(
        argv, capture_output=True, text=True, timeout=_LONGEST, env=_environment()
    )
    return _was_killed(ended.returncode, ended.stderr)


def killed_after(seconds: float, said: str, root: Path, *command: str) -> bool:
    """Run `dying.py`, and kill it some time after a line with `said` in it; whether it was.

    Args:
        seconds: after that line.
        said: part of a line on standard output; "" means the start.
        root: as `dying.py`'s.
        command: its program and arguments.
    """
    argv = [sys.executable, _DYING, "0", str(root), *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(argv, **pipes, text=True, env=_environment())
    timers = [threading.Timer(_LONGEST, process.kill), threading.Timer(seconds, process.kill)]
    timers[0].start()
    assert process.stdout is not None
    while said and said not in (line := process.stdout.readline()):
        assert line, "the line never came"
    timers[1].start()
    errors = process.communicate()[1]
    for timer in timers:
        timer.cancel()
    return _was_killed(process.returncode, errors)


def _was_killed(status: int, errors: str) -> bool:
    assert status in (0, -signal.SIGKILL), errors
    assert errors == ""
    counts["kills"] += status != 0
    return status != 0


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    counts["bit flips"] += 1


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Cut a file short, by one byte at least."""
    os.truncate(path, int(rng.integers(path.stat().st_size)))
    counts["truncations"] += 1


def damage(path: Path, rng: np.random.Generator) -> None:
    """Flip a bit of a file, or cut it short."""
    (flip if rng.integers(2) else truncate)(path, rng)


def files(directory: Path) -> list[Path]:
    """All files below a directory that are not empty, in a fixed order."""
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.stat().st_size)


def assert_whole(root: Path) -> None:
    """Nothing below `root` that has its own name is half written."""
    for path in root.rglob("*"):
        if any(part.startswith(WRITING) for part in path.parts):
            continue
        if path.parent.name == "checkpoints" and path.name[0].isdecimal():
            assert checkpoint_files.damage(path) is None
        elif path.name == "results.json":
            results = read_sealed(path)
            assert sha256(path.parent / "predictions.npz") == results["predictions_sha256"]
        elif path.name == "study.json":
            assert "sha256" in read_sealed(path)
        elif path.name == "contents.json":
            assert cache.read(path.parent, "name") is not None


def outcome(workdir: Path) -> dict[str, Any]:
    """What a finished run says, without clocks, and its final state, leaf by leaf."""
    results = json.loads((workdir / "results.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert rows == results["history"]
    assert not list(workdir.rglob(f"{WRITING}*"))
    # One that was killed with its last breath may have left its lock, which holds nobody up.
    with locked(workdir):
        pass
    clocks = ("seconds", "images_per_second")
    history = [{k: v for k, v in row.items() if k not in clocks} for row in rows]
    with np.load(workdir / "predictions.npz") as predictions:
        arrays = {name: predictions[name].tolist() for name in predictions}
    newest = checkpoint_files.newest_intact(workdir / "checkpoints")
    assert newest == (len(history), 0)
    return {
        "history": history,
        "test": [results[k] for k in ("test_loss", "test_accuracy", "confusion_matrix")],
        "predictions": arrays,
        "state": state_of(workdir / "checkpoints" / str(newest)),
    }


def state_of(path: Path) -> list[bytes]:
    """Every leaf of a checkpoint's state."""
    restored = ocp.StandardCheckpointer().restore(path / "state")
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored)]
