"""Selection of the device, and peaks of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_jax.device import peak_device_memory_bytes


class Plugin:
    """A device of a plugin that measures memory, or does not."""

    def __init__(self, stats: object) -> None:
        self.stats = stats

    def memory_stats(self) -> object:
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats


CHILD = """
from cifar_jax.device import peak_memory_bytes
before = peak_memory_bytes()
block = b"x" * (before * 2)
high = peak_memory_bytes()
del block
print(before, high, peak_memory_bytes())
"""


def test_the_peak_is_in_bytes_of_this_process_alone_and_stays() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    before, high, after = map(int, done.stdout.split())
    # A small Python process, whatever the one that started it has taken.
    assert 2**22 < before < 2**26
    assert high == pytest.approx(3 * before, rel=0.1)
    assert after == pytest.approx(high, rel=0.02)  # Linux counts pages in batches.


def test_a_device_that_does_not_count_has_no_peak() -> None:
    assert peak_device_memory_bytes(Plugin({"peak_bytes_in_use": 7})) == 7
    for silent in (None, {}, RuntimeError("UNIMPLEMENTED"), NotImplementedError()):
        assert peak_device_memory_bytes(Plugin(silent)) is None


@pytest.fixture
def broken_plugin(tmp_path: Path) -> dict[str, str]:
    """An environment with a plugin of JAX that cannot start, as `cuda` where there is no driver."""
    plugin = tmp_path / "jax_plugins" / "broken" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("def initialize():\n    raise RuntimeError('no driver\\n  is here')\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}


SELECT = """
import sys
from cifar_jax.device import select_device
from cifar_jax.errors import UserError
try:
    print(select_device(*[name if name != "None" else None for name in sys.argv[1:]]).platform)
except UserError as error:
    print(error)
"""


def selected(name: str | None, environment: dict[str, str]) -> tuple[str, str]:
    command = [sys.executable, "-c", SELECT, str(name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout, done.stderr


def test_a_plugin_that_cannot_start_is_one_line_without_its_traceback(
    broken_plugin: dict[str, str],
) -> None:
    device, told = selected(None, broken_plugin)
    assert device == "cpu\n"
    assert told.startswith("cifar_jax: warning: ")
    assert told.endswith("could not be started (no driver is here); the device is cpu\n")
    assert told.count("\n") == 1
    assert "jax_plugins.broken" in told

    message, told = selected("tpu", broken_plugin)
    assert "--device tpu" in message
    assert "no driver is here" in message
    assert message.count("\n") == 1
    assert told == ""

    assert selected("cpu", broken_plugin) == ("cpu\n", "")


@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_jax_platforms_without_a_device_is_one_line(platforms: str) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": platforms}
    for name in (None, "gpu"):
        message, told = selected(name, environment)
        assert message.startswith(f"JAX_PLATFORMS={platforms}: JAX finds no such device")
        assert message.count("\n") == 1
        assert told == ""
    assert selected("cpu", environment) == ("cpu\n", "")
