"""Compare a program with its device's limits: a roofline (Williams et al. 2009).

The two ceilings are measured: operations per second of one large matrix product, and bytes per
second of one sweep over a large array. A program of F operations and B bytes takes at least
max(F / ceiling, B / ceiling) seconds, unless some bytes stay in caches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks._timing import table, time_interleaved
from cifar_jax.core.train import Experiment
from cifar_jax.kernels import jit

MATRIX = {"cpu": 2048}
"""Rows of the square matrices, by backend; on others `_LARGE`."""
_LARGE = 8192
SWEPT = 2**28
"""Bytes of the array that is swept: more than any cache holds."""


class Ceilings(NamedTuple):
    """FLOP/s of a product in the experiment's precision, and bytes/s of memory traffic."""

    flops: float
    bytes: float


class Cost(NamedTuple):
    """Operations and bytes of a call of a compiled program.

    `flops` and `bytes` are XLA's count for the compiled program, or None: each fused loop reads its
    operands and writes its results once. `defined` are the operations of the network's
    definition. Winograd's products need fewer.
    """

    defined: int
    flops: float | None
    bytes: float | None


def measure_ceilings(
    experiment: Experiment, repeats: int, *, progress: Callable[[str], None] = lambda _: None
) -> Ceilings:
    """Measure the ceilings of the default device, best of `repeats`."""
    backend = jax.default_backend()
    n = MATRIX.get(backend, _LARGE)
    matrix = jax.random.normal(jax.random.key(0), (n, n), experiment.inputs.dtype)
    array = [jnp.zeros(SWEPT // 4, jnp.float32)]
    product = jit(lambda x: jnp.dot(x, x, precision=experiment.precision))
    # In place: otherwise each call would allocate new memory.
    change = jax.jit(lambda x: x + 1, donate_argnums=0)

    def sweep() -> jax.Array:
        array[0] = change(array[0])
        return array[0]

    calls = {"ceiling: product": lambda: product(matrix), "ceiling: sweep": sweep}
    timings = [min(t.samples) for t in time_interleaved(calls, repeats, progress=progress).values()]
    return Ceilings(2 * n**3 / timings[0], 2 * SWEPT / timings[1])


def count(compiled: Any, defined: int) -> Cost:
    """Return the cost of a compiled program without loops. XLA counts one iteration of a loop."""
    analysis = compiled.cost_analysis() or {}
    if isinstance(analysis, list):
        analysis = analysis[0]
    return Cost(defined, analysis.get("flops"), analysis.get("bytes accessed"))


def compare(cost: Cost, ceilings: Ceilings, seconds: float) -> dict[str, Any]:
    """Return the rates of a call that takes `seconds`, and their shares of the ceilings."""
    rates: dict[str, Any] = {
        "seconds": seconds,
        "defined FLOP/s": cost.defined / seconds,
        "of FLOP/s ceiling, defined": cost.defined / seconds / ceilings.flops,
    }
    if cost.flops is not None and cost.bytes is not None:
        least = {"FLOP/s": cost.flops / ceilings.flops, "bytes/s": cost.bytes / ceilings.bytes}
        rates |= {
            "FLOP/s": cost.flops / seconds,
            "of FLOP/s ceiling": least["FLOP/s"] / seconds,
            "bytes/s": cost.bytes / seconds,
            "of bytes/s ceiling": least["bytes/s"] / seconds,
            "FLOP a byte": cost.flops / cost.bytes,
            "bound by": max(least, key=least.__getitem__),
        }
    return rates


def _row(what: str, rates: dict[str, Any]) -> list[str]:
    def share(rate: str, ceiling: str) -> str:
        if rate not in rates:
            return "not counted"
        return f"{rates[rate] / 1e9:.0f} ({rates[ceiling]:.0%})"

    return [
        what,
        f"{1e3 * rates['seconds']:.1f}",
        share("defined FLOP/s", "of FLOP/s ceiling, defined"),
        share("FLOP/s", "of FLOP/s ceiling"),
        share("bytes/s", "of bytes/s ceiling"),
        rates.get("bound by", ""),
    ]


def describe(roofline: dict[str, Any]) -> str:
    """Format the ceilings and the programs of a dict as a table."""
    ceilings = Ceilings(**roofline["ceilings"])
    limits = f"{ceilings.flops / 1e9:,.0f} GFLOP/s and {ceilings.bytes / 1e9:,.1f} GB/s"
    header = ["roofline", "ms a step", "GFLOP/s defined", "GFLOP/s done", "GB/s", "bound by"]
    rows = [_row(what, rates) for what, rates in roofline.items() if what != "ceilings"]
    return f"ceilings, measured: {limits}\n{table(header, rows)}"
