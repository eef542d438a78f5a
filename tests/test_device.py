"""What the device and this process have taken in memory."""

import subprocess
import sys

from cifar_jax.device import peak_device_memory_bytes


class Plugin:
    """A device of a plugin that counts, or does not."""

    def __init__(self, stats: object) -> None:
        self.stats = stats

    def memory_stats(self) -> object:
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats


CHILD = """
from cifar_jax.device import peak_memory_bytes
before = peak_memory_bytes()
block = b"x" * before * 2
high = peak_memory_bytes()
del block
print(before, high, peak_memory_bytes())
"""


def test_the_peak_is_in_bytes_of_this_process_alone_and_stays() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    before, high, after = map(int, done.stdout.split())
    # A small Python process, whatever the one that started it has taken.
    assert 2**22 < before < 2**26
    assert 2 * before < high < 4 * before
    assert after >= high


def test_a_device_that_does_not_count_has_no_peak() -> None:
    assert peak_device_memory_bytes(Plugin({"peak_bytes_in_use": 7})) == 7
    for silent in (None, {}, RuntimeError("UNIMPLEMENTED"), NotImplementedError()):
        assert peak_device_memory_bytes(Plugin(silent)) is None
