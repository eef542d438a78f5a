"""Where `dying.py` finds the package, and the count of faults."""

import sys
from pathlib import Path
from typing import Any

import faulty

# For the archives of the tests of CIFAR-10's source, and for made-up studies.
for name in ("data", "report"):
    sys.path.append(str(Path(__file__).parents[1] / name))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if faulty.done:
        counts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(faulty.done.items()))
        terminalreporter.write_line(f"faults: {counts}")
