"""What made a result: versions, device, revision of the code."""

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


def describe_device(kind: str, device_platform: str) -> str:
    """One line for a JAX device, from its `device_kind` and `platform`."""
    if device_platform == "cpu":
        return f"cpu: {_cpu_name()}, {cpu_count()} cores"
    return f"{device_platform}: {kind}"


def describe_computing(kind: str, device_platform: str) -> str:
    """What decides the bits of what a JAX device computes, besides its input, in a line."""
    if device_platform == "cpu":
        where = f"cpu: {_cpu_name()}, --threads {fixed_threads() or cpu_count()}"
    else:
        where = f"{device_platform}: {kind}"
    set_ = variables.in_words(variables.recorded(device_platform))
    return f"{where}, jax {metadata.version('jax')}" + (f", {set_}" if set_ else "")


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


def determinism(device_platform: str, computed_on: Sequence[str]) -> dict[str, Any]:
    """Whether the same seed, device and versions give bitwise the same run; the entries of results.

    Args:
        device_platform: of the JAX device.
        computed_on: from begin to end, each once: see `describe_computing`.

    Returns:
        `computed_on`; `variables`, see `variables.recorded`; `deterministic`; and
        `determinism_note`: on what that depends, or why not.
    """
    promised, note = False, f"not verified on {device_platform}"
    found = variables.recorded(device_platform)
    if len(computed_on) > 1:
        note = f"begun in one way and resumed in another: {'; '.join(computed_on)}"
    elif found:
        note = f"variables that can change the numbers are set: {variables.in_words(found)}"
    elif device_platform == "cpu":
        promised = fixed_threads() is not None
        fixed = "the same bits on any number of cores, since --threads was given"
        unless = "one thread a core, and their number decides the order of sums: --threads fixes it"
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
