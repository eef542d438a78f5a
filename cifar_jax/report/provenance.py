"""What made a result: versions, device, revision of the code."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import cifar_jax

_GPU_FLAG = "--xla_gpu_deterministic_ops=true"
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


def determinism(device_platform: str, xla_flags: str | None = None) -> dict[str, Any]:
    """Whether the same seed, device and versions give bitwise the same run; the entries of results.

    Args:
        device_platform: of the JAX device.
        xla_flags: those in force; by default the environment variable `XLA_FLAGS`.

    Returns:
        `deterministic`, and `determinism_note`: on what that depends, or why not.
    """
    flags = os.environ.get("XLA_FLAGS", "") if xla_flags is None else xla_flags
    if device_platform == "cpu":
        threads = os.environ.get("NPROC") or cpu_count()
        note = (
            f"with {threads} threads: their number, that of the cores or NPROC, decides the order "
            "of sums"
        )
        return {"deterministic": True, "determinism_note": note}
    if device_platform == "gpu":
        if _GPU_FLAG in re.findall(r"--xla_gpu_deterministic_ops(?:=\w+)?", flags):
            return {"deterministic": True, "determinism_note": f"XLA_FLAGS has {_GPU_FLAG}"}
        note = f"XLA chooses kernels by timing them, unless XLA_FLAGS has {_GPU_FLAG}"
        return {"deterministic": False, "determinism_note": note}
    note = f"not verified on {device_platform}"
    return {"deterministic": False, "determinism_note": note}
