"""Time candidates in turns, so that other load slows all of them equally."""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cifar_jax.device import cpu_count


class Timing(NamedTuple):
    """Seconds a call: median, first and third quartile, and every repetition in order."""

    median: float
    q1: float
    q3: float
    samples: list[float]


def summary(samples: list[float]) -> Timing:
    """Return median and quartiles of one or more repetitions."""
    if len(samples) == 1:
        return Timing(*samples * 3, samples)
    q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, q1, q3, samples)


def time_interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    progress: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time each candidate `repeats` times in the order A B C A B C ...

    The first call of each does not count (compilation, caches, page faults). A call ends when all
    its returned arrays are ready.
    """
    for name, call in candidates.items():
        progress(f"warm-up: {name}")
        jax.block_until_ready(call())
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats):
        progress(f"repeat {repeat + 1}/{repeats}")
        for name, call in candidates.items():
            start = clock()
            jax.block_until_ready(call())
            samples[name].append(clock() - start)
    return {name: summary(seconds) for name, seconds in samples.items()}


def show_progress(line: str) -> None:
    """Overwrite the progress line on standard error."""
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Return the commit of this repository, with a + if files were changed."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _command() -> str:
    """Return the command line from the repository's root, without paths of files."""
    names = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *names])


def environment() -> dict[str, Any]:
    """Return versions, device and command of a measurement."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "command": _command(),
        "processor": _processor(),
        "cores": cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {
            name: _version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
        },
    }


def _rounded(value: Any) -> Any:
    """Round every float to five significant digits, the clock's precision."""
    match value:
        case float():
            return float(f"{value:.5g}")
        case Mapping():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
    return value


def write_json(path: Path, results: Any) -> None:
    """Write the environment and the results atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"environment": environment(), "results": _rounded(results)}
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table. The first column is aligned left, the others right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
