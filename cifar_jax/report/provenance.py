"""What made a result: versions, device, revision of the code."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import cifar_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of those that decide its numbers."""
    found = {"python": platform.python_version(), "cifar_jax": cifar_jax.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device(kind: str, device_platform: str) -> str:
    """One line for a JAX device, from its `device_kind` and `platform`."""
    if device_platform == "cpu":
        return f"cpu: {_cpu_name()}, {cpu_count()} cores"
    return f"{device_platform}: {kind}"


def git_revision() -> str | None:
    """Commit of the code, with "-dirty" where it was changed; None outside a checkout."""

    def git(*arguments: str) -> str:
        root = Path(cifar_jax.__file__).parent
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # a copy inside somebody else's repository
            return None
        revision = git("rev-parse", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
