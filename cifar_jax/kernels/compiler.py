"""XLA options that make training programs faster, if this version of XLA has them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

_OPTIONS: dict[str, dict[str, str | bool]] = {
    "cpu": {
        # By default YNNPACK also takes the matrix products. There, a batch of small ones, such as
        # Winograd's, runs on a single thread, and a step takes up to 1.2 times as long.
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,"
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION",
    },
}

# For a program of several runs. It multiplies batches of matrices. There cuBLAS is as fast as
# Triton's kernels, whose tuning takes most of the compilation (benchmarks/README.md).
_SEVERAL: dict[str, dict[str, str | bool]] = {"gpu": {"xla_gpu_enable_triton_gemm": False}}

# For a program that runs once. It compiles in a third of the time, and computes the same bits.
_ONCE: dict[str, dict[str, str | bool | int]] = {"cpu": {"xla_backend_optimization_level": 1}}


def known_options(options: Mapping[str, str | bool]) -> dict[str, str | bool]:
    """Those of the options that this version of XLA knows.

    An unknown one in a program's own options is an error that can be caught. One in the environment
    variable `XLA_FLAGS` ends the process.
    """
    lowered = jax.jit(lambda x: x).lower(0.0)

    def known(name: str, value: str | bool) -> bool:
        try:
            lowered.compile(compiler_options={name: value})
        except RuntimeError:
            return False
        return True

    return {k: v for k, v in options.items() if known(k, v)}


@functools.cache
def compiler_options(platform: str, several: bool = False) -> dict[str, str | bool]:
    """Options for a backend, without those that this version of XLA does not know.

    Args:
        platform: JAX's name of the backend.
        several: whether the program computes several runs.
    """
    options = _OPTIONS.get(platform, {}) | (_SEVERAL.get(platform, {}) if several else {})
    return known_options(options)


def jit(function: Callable[..., Any], *, several: bool = False, **options: Any) -> Any:
    """`jax.jit` with `compiler_options` for the default backend."""
    chosen = compiler_options(jax.default_backend(), several)
    return jax.jit(function, compiler_options=chosen, **options)


def jit_once(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` of a function that runs once, with options that let it compile fast."""
    cheap = _ONCE.get(jax.default_backend(), {})
    if jax.config.read("jax_disable_most_optimizations"):  # It sets this option.
        cheap = {}
    return jax.jit(function, compiler_options=dict(cheap), **options)
