"""oneDNN's convolution, which XLA contains for x86 CPUs but does not choose itself.

A custom call asks for it. With 16 to 63 channels it takes half of the time of XLA's own
convolution (benchmarks/README.md). XLA does not document the call. It has three limits:

- A configuration that XLA does not understand ends the process. So only the versions of jaxlib that
  the tests ran with get the call (`KNOWN`).
- XLA cannot store a program with it. Each process compiles such a program anew.
- XLA cannot divide it between devices.
"""

import functools
import json
import math
import platform
import sys
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxlib.version import __version__ as jaxlib_version

from cifar_jax.kernels.taps import output_size

KNOWN = ((0, 9), (0, 12))
"""First and last minor version of jaxlib that understands the configuration below."""


@functools.cache
def available() -> bool:
    """Return whether programs may contain the call here."""
    version = tuple(map(int, jaxlib_version.split(".")[:2]))
    return (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and KNOWN[0] <= version <= KNOWN[1]
        and jax.default_backend() == "cpu"
        and jax.device_count() == 1
    )


def fits(*operands: jax.Array) -> bool:
    """Return whether oneDNN can compute with these arrays: XLA lets it have float32 alone."""
    return available() and all(x.dtype == jnp.float32 for x in operands)


def _axes(**positions: int | Iterable[int]) -> dict[str, Any]:
    """A message of integers in JSON, in which Protocol Buffers write 64 bits as a string."""
    return {k: str(v) if isinstance(v, int) else list(map(str, v)) for k, v in positions.items()}


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> jax.Array:
    """Convolution without groups, float32: (N, H, W, Cin) with (h, w, Cin, Cout).

    Args:
        strides, dilation: along H and W.
        padding: zeros before and after, along H and W; not negative.
    """
    # Storing a program, XLA takes this call for one of another kind, and reads foreign memory.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    images = {"dims": "4", "data": _axes(batch_dim=0, feature_dim=3, spatial_dims=(1, 2))}
    weights = _axes(input_feature_dim=2, output_feature_dim=3, spatial_dims=(0, 1))
    before, after = zip(*padding, strict=True)
    config = {
        "dims": "4",
        "input": images,
        "kernel": {"dims": "4", "filter": weights},
        "output": images,
        "window": _axes(
            pad_left=before, pad_right=after, strides=strides, window_dilations=dilation
        ),
        "feature_groups": "1",
    }
    shape = [
        output_size(x.shape[i + 1] + sum(padding[i]), kernel.shape[i], strides[i], dilation[i])
        for i in (0, 1)
    ]
    call = jax.ffi.ffi_call(
        "__onednn$convolution",
        jax.ShapeDtypeStruct((len(x), *shape, kernel.shape[-1]), x.dtype),
        custom_call_api_version=2,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
        vmap_method="sequential",
    )
    y: jax.Array = call(x, kernel)
    return y
