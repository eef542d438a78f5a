"""Environment variables that change the results of JAX and XLA.

Both read their variables once, when JAX is imported. `drop_fixed` removes those that would change
results. `recorded` returns the others, for the results file.
"""

import hashlib
import os
import re
from pathlib import Path

from cifar_jax.errors import UserError, one_line, printable, shown

_NO, _YES = ("0", "false", "f", "no", "n", "off"), ("1", "true", "t", "yes", "y", "on")

# Each variable with the values that mean JAX's default. Other values change the numbers or stop a
# run with an error.
_FIXED = {
    "JAX_CHECK_TRACER_LEAKS": _NO,
    "JAX_DATA_DEPENDENT_TRACING_FALLBACK": _NO,
    "JAX_DEBUG_INFS": _NO,
    "JAX_DEBUG_KEY_REUSE": _NO,
    "JAX_DEBUG_NANS": _NO,
    "JAX_DEFAULT_DTYPE_BITS": ("64",),
    "JAX_DEFAULT_MATMUL_PRECISION": (),
    "JAX_DEFAULT_PRNG_IMPL": ("threefry2x32",),
    "JAX_DISABLE_JIT": _NO,
    "JAX_DYNAMIC_SHAPES": (),
    "JAX_ENABLE_CUSTOM_PRNG": _NO,
    "JAX_ENABLE_X64": _NO,
    "JAX_ERROR_CHECKING_BEHAVIOR_DIVIDE": ("ignore",),
    "JAX_ERROR_CHECKING_BEHAVIOR_NAN": ("ignore",),
    "JAX_ERROR_CHECKING_BEHAVIOR_OOB": ("ignore",),
    "JAX_EXPLICIT_X64_DTYPES": ("warn",),
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": _NO,
    "JAX_LEGACY_PRNG_KEY": ("allow",),
    "JAX_NO_EXECUTION": _NO,
    "JAX_NO_TRACING": _NO,
    "JAX_NUMPY_DTYPE_PROMOTION": ("standard",),
    "JAX_NUMPY_RANK_PROMOTION": ("allow",),
    "JAX_RAISE_PERSISTENT_CACHE_ERRORS": _NO,
    "JAX_RANDOM_SEED_OFFSET": ("0",),
    "JAX_THREEFRY_PARTITIONABLE": _YES,
    "JAX_TRANSFER_GUARD": ("allow",),
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE": ("allow",),
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST": ("allow",),
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE": ("allow",),
}
# Devices, caches and logs.
_HARMLESS = re.compile(
    "JAX_(PLATFORM|.*VISIBLE_DEVICES|.*_CACHE|.*LOG|DUMP|ENABLE_CHECKS|INCLUDE|PPRINT|SKIP|TRACEB)"
)
_HARMLESS_FLAGS = re.compile("--xla_(dump_|gpu_cuda_data_dir|gpu_deterministic_ops)")
_BY_PLATFORM = {"gpu": ("NVIDIA_TF32_OVERRIDE",), "tpu": ("LIBTPU_INIT_ARGS",)}
_LONGEST = 200


def drop_fixed() -> list[str]:
    """Remove the variables of `_FIXED` from the environment. Call it before JAX is imported.

    Returns:
        `NAME=value` of each whose value was not JAX's default, for a warning.
    """
    found = []
    for name, default in _FIXED.items():
        value = os.environ.pop(name, "")
        if value and value.lower() not in default:
            found.append(printable(f"{name}={value}"))
    return found


def import_jax() -> None:
    """Import JAX.

    Raises:
        UserError: a `JAX_` variable has a value that JAX does not accept.
    """
    try:
        import jax  # noqa: F401
    except ValueError as error:
        names = sorted(name for name in os.environ if name.startswith("JAX_"))
        if not names:
            raise
        raise UserError(
            f"JAX does not start ({one_line(error)}); correct or unset its variables: "
            + ", ".join(f"{name}={shown(os.environ[name])}" for name in names)
        ) from error


def xla_flags() -> list[str]:
    """Return the flags of `XLA_FLAGS`, or of the file that it names, sorted.

    The last flag of each name counts.
    """
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        try:
            text = Path(text).read_text(errors="replace")
        except OSError:
            text = ""
    return sorted({flag.partition("=")[0]: flag for flag in text.split()}.values())


def recorded(platform: str) -> dict[str, str]:
    """Return the variables that can change the numbers on a JAX platform, with their values."""
    found = {}
    for name, value in sorted(os.environ.items()):
        if name == "XLA_FLAGS":
            value = " ".join(flag for flag in xla_flags() if not _HARMLESS_FLAGS.match(flag))
        elif name.startswith("JAX_"):
            value = "" if _HARMLESS.match(name) else value
        elif name not in _BY_PLATFORM.get(platform, ()):
            continue
        if value:
            found[name] = printable(value)
    return found


def in_words(variables: dict[str, str]) -> str:
    """Return `NAME=value, ...` on one line. A long value is cut and followed by its digest."""
    parts = []
    for name, value in variables.items():
        if len(value) > _LONGEST:
            digest = hashlib.sha256(value.encode()).hexdigest()[:12]
            value = f"{value[:_LONGEST]}... (SHA-256 {digest})"
        parts.append(f"{name}={value}")
    return ", ".join(parts)
