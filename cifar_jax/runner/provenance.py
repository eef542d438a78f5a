"""Describe the origin of a result: versions, device, revision of the code."""

import functools
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cifar_jax
from cifar_jax import variables
from cifar_jax.device import cpu_count, fixed_threads

_GPU_FLAG = "--xla_gpu_deterministic_ops=true"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, this package, and the packages that affect its numbers."""
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


def describe_device(kind: str, device_platform: str) -> str:
    """Describe a JAX device in one line, from its `device_kind` and `platform`."""
    if device_platform == "cpu":
        return f"cpu: {_cpu_name()}, {cpu_count()} cores"
    return f"{device_platform}: {kind}"


def describe_computing(kind: str, device_platform: str) -> str:
    """Describe in one line what changes the bits of results: device, threads, JAX and variables."""
    if device_platform == "cpu":
        where = f"cpu: {_cpu_name()}, --threads {fixed_threads() or cpu_count()}"
    else:
        where = f"{device_platform}: {kind}"
    found = variables.in_words(variables.recorded(device_platform))
    return f"{where}, jax {metadata.version('jax')}" + (f", {found}" if found else "")


@functools.cache
def git_revision() -> str | None:
    """Return the commit of the code, with "-dirty" if it was changed. None outside a checkout.

    Commits after the first call do not count: the process does not load them.
    """

    def git(*arguments: str) -> str:
        root = Path(cifar_jax.__file__).parent
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # a copy inside another repository
            return None
        revision = git("rev-parse", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def determinism(device_platform: str, computed_on: Sequence[str]) -> dict[str, Any]:
    """Return the results' entries on bitwise repeatability.

    Args:
        device_platform: of the JAX device.
        computed_on: `describe_computing` of the run and of each resumption, without repeats.

    Returns:
        `computed_on`, `variables`, `deterministic` and `determinism_note`. A run is deterministic
        if the same seed, device and versions repeat it bit for bit. The note has the reason.
    """
    promised, note = False, f"not verified on {device_platform}"
    found = variables.recorded(device_platform)
    if len(computed_on) > 1:
        note = f"begun and resumed on different devices or versions: {'; '.join(computed_on)}"
    elif found:
        note = f"variables that can change the numbers are set: {variables.in_words(found)}"
    elif device_platform == "cpu":
        promised = fixed_threads() is not None
        fixed = "the same bits on any number of cores, because --threads was given"
        unless = "the number of cores changes the order of sums, unless --threads is given"
        note = fixed if promised else unless
    elif device_platform == "gpu":
        promised = _GPU_FLAG in variables.xla_flags()
        unless = f"XLA chooses kernels by timing them, unless XLA_FLAGS has {_GPU_FLAG}"
        note = f"XLA_FLAGS has {_GPU_FLAG}" if promised else unless
    return {
        "computed_on": list(computed_on),
        "variables": found,
        "deterministic": promised,
        "determinism_note": note,
    }
