"""oneDNN's convolution and product, which XLA contains for x86 CPUs but does not choose itself.

Custom calls ask for them. With 16 to 63 channels the convolution takes half of the time of XLA's
own (benchmarks/README.md). XLA does not document the calls. They have three limits:

- A configuration that XLA does not understand ends the process. So only the versions of jaxlib that
  the tests ran with get the calls (`KNOWN`).
- XLA cannot store a program with them. Each process compiles such a program anew.
- XLA cannot divide them between devices.
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
    """Return whether programs may contain the calls here."""
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


def _call(
    name: str, config: dict[str, Any], shape: tuple[int, ...], vmap: str, *operands: jax.Array
) -> jax.Array:
    # Storing a program, XLA takes this call for one of another kind, and reads foreign memory.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    call = jax.ffi.ffi_call(
        f"__onednn${name}",
        jax.ShapeDtypeStruct(shape, operands[0].dtype),
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(config),
        vmap_method=vmap,
    )
    y: jax.Array = call(*operands)
    return y


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    kernel_layout: str = "HWIO",
) -> jax.Array:
    """Convolution without groups, float32: (N, H, W, Cin) with (h, w, Cin, Cout).

    Args:
        strides, dilation: along H and W.
        padding: zeros before and after, along H and W; not negative.
        kernel_layout: order of the kernel's axes. oneDNN reads another without a transposition.
    """
    images = {"dims": "4", "data": _axes(batch_dim=0, feature_dim=3, spatial_dims=(1, 2))}
    axes = {name: axis for axis, name in enumerate(kernel_layout)}
    weights = _axes(
        input_feature_dim=axes["I"],
        output_feature_dim=axes["O"],
        spatial_dims=(axes["H"], axes["W"]),
    )
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
    size = [
        output_size(x.shape[i + 1] + sum(padding[i]), kernel.shape[axis], strides[i], dilation[i])
        for i, axis in enumerate((axes["H"], axes["W"]))
    ]
    shape = (len(x), *size, kernel.shape[axes["O"]])
    return _call("convolution", {"onednn_conv_config": config}, shape, "sequential", x, kernel)


@jax.custom_vjp
def gram(x: jax.Array, y: jax.Array) -> jax.Array:
    """Matrix products x^T y, float32: (B, M, K) and (B, M, N) -> (B, K, N); for large M."""
    config = {"onednn_matmul_config": {"transpose_a": True}}
    return _call("matmul", config, (len(x), x.shape[2], y.shape[2]), "broadcast_all", x, y)


def _gram_forward(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return gram(x, y), (x, y)


def _gram_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, y = saved
    return jnp.matmul(y, g.swapaxes(1, 2)), jnp.matmul(x, g)


gram.defvjp(_gram_forward, _gram_backward)
