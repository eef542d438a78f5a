"""The form of a convolution on an accelerator, chosen by a table of measured times.

`forms.json` has, for each card, precision and number of runs, the milliseconds of a whole training
step with each form. `python -m benchmarks.forms --save` measures them.
"""

import functools
import json
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

FORMS = {
    "xla": "XLA's convolution; with several runs a grouped one",
    "blocks": "one product from 4x4 patches to 2x2 blocks of outputs",
    "patches": "one product from 3x3 patches (im2col)",
    "winograd": "Winograd's products from 16 channels on, else blocks",
}
TABLE = Path(__file__).with_name("forms.json")

# Overrides the table, to measure a form.
forced: ContextVar[str | None] = ContextVar("forced", default=None)

Times = dict[str, dict[str, dict[str, float]]]  # precision -> runs -> form -> milliseconds


@functools.cache
def measured(card: str) -> Times:
    """Return the table of a card: milliseconds of a step of all runs. Empty if not measured."""
    times: Times = json.loads(TABLE.read_text(encoding="utf-8")).get(card, {}).get("steps", {})
    return times


def card() -> str:
    """Return the name of the default device, "NVIDIA H100 80GB HBM3" for example."""
    return jax.devices()[0].device_kind


def precision_of(dtype: Any) -> str:
    """Return the name of the precision of products, from their dtype and JAX's setting."""
    if dtype == jnp.bfloat16:
        return "bfloat16"
    return "tf32" if jax.config.jax_default_matmul_precision == "tensorfloat32" else "float32"


def nearest(times: dict[str, Any], runs: int) -> Any:
    """Return the entry of the largest measured number of runs up to `runs`, or the smallest."""
    counts = sorted(map(int, times))
    return times[str(max([n for n in counts if n <= runs], default=counts[0]))]


def best_form(dtype: Any, runs: int) -> str:
    """Return the fastest form for the default device, a key of `FORMS`.

    Args:
        dtype: of the images and the kernel.
        runs: that train together.
    """
    chosen = forced.get()
    if chosen is not None:
        return chosen
    times = measured(card()).get(precision_of(dtype), {})
    if not times:
        return "xla" if runs == 1 else "blocks"
    found: dict[str, float] = nearest(times, runs)
    return min(found, key=found.__getitem__)
