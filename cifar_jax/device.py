"""Which device a run uses, how JAX is set up for it, and how much memory it has taken."""

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

# Names under which a plugin registers: jax-mps, then jax-metal.
_PLATFORMS = {"cpu": ("cpu",), "gpu": ("gpu",), "metal": ("mps", "METAL"), "tpu": ("tpu",)}


@contextlib.contextmanager
def _plugin_faults() -> Iterator[list[str]]:
    """What kept plugins from starting, a line each, meanwhile.

    JAX logs it with a traceback and goes on without the plugin, for example where the extra `cuda`
    is installed and the driver is not.
    """
    faults: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if not record.exc_info or record.exc_info[1] is None:
            return True
        plugin = record.args[0] if isinstance(record.args, tuple) and record.args else "a plugin"
        reason = one_line(record.exc_info[1])
        faults.append(printable(f"{plugin} could not be started ({reason})"))
        return False

    log = logging.getLogger("jax._src.xla_bridge")
    log.addFilter(keep)
    try:
        yield faults
    finally:
        log.removeFilter(keep)


def _present() -> "list[jax.Device]":
    """The devices of JAX's best backend.

    Raises:
        UserError: there is none, for example of those that the environment allows.
    """
    import jax

    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # The second where a plugin is not installed.
        why = f" ({one_line(error)})" if str(error) else ""
        allowed = os.environ.get("JAX_PLATFORMS")
        if not allowed:
            raise UserError(f"JAX finds no device here{why}") from error
        raise UserError(
            f"JAX_PLATFORMS={allowed}: JAX finds no such device here{why}; "
            "unset it or use --device cpu"
        ) from error


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fixed_threads() -> int | None:
    """Threads of XLA's on the CPU as `NPROC` says, which XLA reads once; None: one a core."""
    wanted = os.environ.get("NPROC", "")
    return int(wanted) if re.fullmatch("0*[1-9][0-9]{0,8}", wanted) else None


def select_device(name: str | None, threads: int | None = None) -> "jax.Device":
    """Make a device the default one of this process.

    A plugin that cannot start is a warning on standard error where None lets JAX fall back.

    Args:
        name: one of `DEVICES`, or None for JAX's own choice.
        threads: of the CPU, in a process that has computed nothing yet; None for `fixed_threads`.

    Raises:
        UserError: if there is none, naming those that are there.
    """
    if threads is not None:
        os.environ["NPROC"] = str(threads)
    import jax

    if name == "cpu":
        # Else JAX would also take hold of an accelerator that nobody asked for.
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
    raise UserError(f"--device {name}: there is none here, only {', '.join(platforms)}{more}")


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had resident so far; None where nobody tells.

    On Linux the kernel's `VmHWM`: what `getrusage` says there is not below what the process had
    that started this one.
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


def peak_device_memory_bytes(device: "jax.Device") -> int | None:
    """The most memory of its own that a device has given so far; None for a CPU, which has none."""
    try:
        stats = device.memory_stats() or {}
    except (RuntimeError, NotImplementedError):  # Not every plugin counts.
        return None
    peak: int | None = stats.get("peak_bytes_in_use")
    return peak


def use_compilation_cache(directory: Path) -> None:
    """Keep compiled programs between runs, unless the user has chosen a place already."""
    import jax

    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # Only slower without it.
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # Not only epochs: two smaller programs of a run take 0.6 s each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    _empty_when_damaged(directory)


def _empty_when_damaged(cache: Path) -> None:
    """Have a damaged compiled program replaced; say nothing of one that cannot be kept.

    JAX does not write over what is there: it would warn of the damage and compile again, at every
    start, for example of a file that was half written when the process was killed.
    """
    show, about = warnings.showwarning, "Error (reading|writing) persistent compilation cache entry"
    warnings.filterwarnings("always", message=about)

    def show_or_empty(message: Warning | str, *place: Any, **where: Any) -> None:
        found = re.match(about, str(message))
        if not found:
            show(message, *place, **where)
        elif found[1] == "reading":
            for path in cache.glob("*"):
                remove(path)

    warnings.showwarning = show_or_empty
