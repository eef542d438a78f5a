"""Select a run's device, set up JAX for it, and measure memory."""

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_jax.errors import UserError, one_line, printable
from cifar_jax.storage import remove

if TYPE_CHECKING:
    import jax

DEVICES = ("cpu", "gpu", "metal", "tpu")

# Names that a plugin registers. Metal: jax-mps, then jax-metal.
_PLATFORMS = {"cpu": ("cpu",), "gpu": ("gpu",), "metal": ("mps", "METAL"), "tpu": ("tpu",)}


@contextlib.contextmanager
def _plugin_faults() -> Iterator[list[str]]:
    """Collect the errors of plugins that cannot start, a line each.

    JAX logs them with a traceback and continues without the plugin, for example if the extra
    `cuda` is installed without a driver.
    """
    faults: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if not record.exc_info or record.exc_info[1] is None:
            return True
        plugin = record.args[0] if isinstance(record.args, tuple) and record.args else "a plugin"
        reason = one_line(record.exc_info[1])
        faults.append(printable(f"{plugin} could not be started ({reason})"))
        return False

    log = logging.getLogger("jax._src.xla_bridge")
    log.addFilter(collect)
    try:
        yield faults
    finally:
        log.removeFilter(collect)


def _present() -> "list[jax.Device]":
    """Return the devices of JAX's best backend.

    Raises:
        UserError: JAX finds no device that the environment allows.
    """
    import jax

    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a plugin is not installed.
        why = f" ({one_line(error)})" if str(error) else ""
        allowed = os.environ.get("JAX_PLATFORMS")
        if not allowed:
            raise UserError(f"JAX finds no device{why}") from error
        raise UserError(
            f"JAX_PLATFORMS={allowed}: JAX finds no such device{why}; unset it or use --device cpu"
        ) from error


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fixed_threads() -> int | None:
    """Return XLA's number of CPU threads, `NPROC`, which XLA reads once. None: one a core."""
    wanted = os.environ.get("NPROC", "")
    return int(wanted) if re.fullmatch("0*[1-9][0-9]{0,8}", wanted) else None


def select_device(name: str | None, threads: int | None = None) -> "jax.Device":
    """Make a device the default of this process.

    Args:
        name: one of `DEVICES`. None takes JAX's choice, and warns on standard error of plugins
            that cannot start.
        threads: of the CPU, set before the first computation; None for `fixed_threads`.

    Raises:
        UserError: the machine has no such device.
    """
    if threads is not None:
        os.environ["NPROC"] = str(threads)
    import jax

    if name == "cpu":
        # Otherwise JAX would also initialise an accelerator.
        jax.config.update("jax_platforms", "cpu")
    with _plugin_faults() as faults:
        present = _present()
    if name is None:
        for fault in faults:
            warning = f"warning: {fault}; the device is {present[0].platform}"
            print(f"cifar_jax: {warning}", file=sys.stderr)
        return present[0]
    for platform in _PLATFORMS[name]:
        try:
            device = jax.devices(platform)[0]
        except RuntimeError:
            continue
        jax.config.update("jax_default_device", device)
        return device
    platforms = sorted({device.platform for device in present})
    hints = {
        "gpu": "an NVIDIA GPU needs the extra `cuda`",
        "metal": "Apple silicon needs the extra `metal` or `jax-metal`",
        "tpu": "a TPU needs jax[tpu]",
    }
    more = "".join(f"; {part}" for part in (*faults, hints.get(name)) if part)
    raise UserError(f"--device {name}: not found, only {', '.join(platforms)}{more}")


def local_devices() -> "list[jax.Device]":
    """Return the devices of this process that can train: those of the selected platform."""
    import jax

    config: Any = jax.config  # Its options are not typed.
    default = config.jax_default_device
    return jax.local_devices(backend=default.platform) if default else jax.local_devices()


def peak_memory_bytes() -> int | None:
    """Return the peak resident memory of this process, or None if it is unknown.

    On Linux this is the kernel's `VmHWM`. `getrusage` would include the parent's peak.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return 1024 * int(found[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _memory_stats(device: "jax.Device") -> dict[str, int]:
    """Return an accelerator's memory statistics in bytes. Empty for a CPU, or if unknown."""
    try:
        return device.memory_stats() or {}
    except (RuntimeError, NotImplementedError):  # Not every plugin measures memory.
        return {}


def peak_device_memory_bytes(device: "jax.Device") -> int | None:
    """Return the peak memory in use on an accelerator. None for a CPU, or if it is unknown."""
    return _memory_stats(device).get("peak_bytes_in_use")


def memory_limit(device: "jax.Device") -> int | None:
    """Return the bytes of an accelerator that JAX may use. None for a CPU, or if unknown."""
    return _memory_stats(device).get("bytes_limit")


def use_compilation_cache(directory: Path) -> None:
    """Cache compiled programs in a directory, unless the user has chosen another."""
    import jax

    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # Without the cache, runs only start more slowly.
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # Small programs too: two of a run compile in 0.6 s each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    _empty_when_damaged(directory)


def _empty_when_damaged(cache: Path) -> None:
    """Empty the cache when JAX cannot read a program in it. Hide warnings of failed writes.

    A kill can leave a half-written file. JAX never overwrites it, but would warn and compile again
    at every start.
    """
    show, about = warnings.showwarning, "Error (reading|writing) persistent compilation cache entry"
    warnings.filterwarnings("always", message=about)

    def show_or_empty(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        found = re.match(about, str(message))
        if not found:
            show(message, *args, **kwargs)
        elif found[1] == "reading":
            for path in cache.glob("*"):
                remove(path)

    warnings.showwarning = show_or_empty
