"""What libraries say stays off the terminal; what is wrong in the program itself does not."""

import subprocess
import sys
from pathlib import Path

import pytest

WARN = """
import sys, warnings
from cifar_jax.libraries import silence
silence()
warnings.warn("of a library", UserWarning)
print("goes on")
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), False),
        (("-W", "error"), True),
        (("-W", "error::UserWarning"), True),
        (("-W", "default"), True),
        (("-W", "ignore"), False),
    ],
)
def test_a_warning_never_ends_the_program(options: tuple[str, ...], said: bool) -> None:
    command = [sys.executable, *options, "-c", WARN]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "goes on\n"
    assert ("of a library" in done.stderr) is said


HOOKS = """
import asyncio, gc, sys
from cifar_jax.libraries import silence
silence()
loop = asyncio.new_event_loop()
loop.close()
try:
    loop.call_soon_threadsafe(print)
except RuntimeError:
    sys.excepthook(*sys.exc_info())  # As tensorstore does.
class Odd:
    def __del__(self):
        1 / 0
Odd()
raise KeyError("a bug")
"""


def test_only_what_asyncio_raises_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", HOOKS], capture_output=True, text=True)
    assert "Event loop" not in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("KeyError: 'a bug'\n")


STARVED = """
import os, resource, sys
from pathlib import Path
from cifar_jax import libraries
libraries.silence()
libraries.start()
import jax, numpy as np
from cifar_jax.core.train import TrainState
from cifar_jax.errors import MachineError
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.checkpoint_files import Position

params = {str(i): np.ones((1, 40, 40), np.float32) for i in range(8)}
key = jax.random.split(jax.random.key(0), 1)
state = TrainState(np.zeros(1), params, {}, (), key, *np.zeros((3, 1)))
most = resource.getrlimit(resource.RLIMIT_NOFILE)
for extra in range(12):
    checkpoints = Checkpoints(Path(sys.argv[1]) / str(extra))
    limit = len(os.listdir("/proc/self/fd")) + extra
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most[1]))
    try:
        checkpoints.save(Position(1), state, {"runs": [{}]})
        print("saved")
    except MachineError as error:
        print(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_too_few_open_files_is_said_by_the_program_alone(tmp_path: Path) -> None:
    """At whatever point of a save they run out; no thread of Orbax's adds a traceback."""
    command = [sys.executable, "-c", STARVED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line != "saved"]
    assert len(lines) == 12
    assert len(failed) >= 4
    assert all(line.endswith("cannot be written (Too many open files)") for line in failed)
    assert done.stderr == ""
