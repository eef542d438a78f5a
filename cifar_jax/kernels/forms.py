"""The form of a convolution on an accelerator, chosen by a table of measured times.

`forms.json` has, for each card, precision and number of runs, the milliseconds of a whole training
step with each form. `python -m benchmarks.forms --save` measures them.
"""

import functools
import json
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

FORMS = {
    "xla": "XLA's convolution; with several runs a grouped one",
    "mixed": "XLA's convolution from 16 channels on, else blocks",
    "blocks": "one product from 4x4 patches to 2x2 blocks of outputs",
    "split": "blocks, each float32 product as three products of TF32",
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


def precision_name(dtype: Any, precision: Any) -> str:
    """Return the setting `--precision` that gives products of a dtype and precision.

    Args:
        dtype: of the operands.
        precision: as of `jax.lax.dot_general`. NVIDIA's default for float32 is TF32.
    """
    if dtype == jnp.bfloat16:
        return "bfloat16"
    one = precision[0] if isinstance(precision, tuple) else precision
    tf32 = (None, "tensorfloat32", "high", lax.Precision.HIGH, lax.Precision.DEFAULT)
    return "tf32" if one in tf32 else "float32"


def fastest(times: Mapping[str, Mapping[str, float]], runs: int) -> str:
    """Return the fastest form at the largest measured number of runs up to `runs`.

    One run is another program than several. If that was not measured, XLA's convolution is the form
    of one run, and blocks are that of several.

    Args:
        times: milliseconds by number of runs and form.
        runs: that train together.
    """
    counts = sorted(count for count in map(int, times) if (count > 1) == (runs > 1))
    if not counts:
        return "xla" if runs == 1 else "blocks"
    found = times[str(max([count for count in counts if count <= runs], default=counts[0]))]
    return min(found, key=found.__getitem__)


def group_size(times: Mapping[str, Mapping[str, float]]) -> int | None:
    """Return how many runs should train together, the measured number with the least time per run.

    None means as many as there are: the largest measured number is the best, or none was measured.

    Args:
        times: milliseconds of a step of all runs, by number of runs and form.
    """
    a_run = {int(runs): min(found.values()) / int(runs) for runs, found in times.items()}
    best = min(a_run, key=a_run.__getitem__, default=None)
    return None if best == max(a_run, default=None) else best


def best_form(precision: str, runs: int) -> str:
    """Return the fastest form for the default device, a key of `FORMS`.

    Args:
        precision: see `precision_name`.
        runs: that train together.
    """
    chosen = forced.get()
    if chosen is not None:
        return chosen
    return fastest(measured(card()).get(precision, {}), runs)


def best_group(precision: str) -> int | None:
    """Return `group_size` for the default device. `precision`: see `precision_name`."""
    return group_size(measured(card()).get(precision, {}))
