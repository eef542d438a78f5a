"""How exactly a device multiplies float32 numbers.

XLA's default on NVIDIA GPUs since Ampere is TF32: matrix products and convolutions round their
float32 factors to 10 bits of mantissa. Here float32 means float32: products ask for the highest
precision, and only a spec with `tf32` lets go of it. CPUs know no other, so nothing is asked there.
Products of bfloat16 are exact anyway and are added up in float32.

The precision is set while a function is traced, and so becomes part of its program; no other
program of the process is touched.
"""

import functools
from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import jax

from cifar_jax.training.state import TrainSpec

P = ParamSpec("P")
R = TypeVar("R")


class Precision(NamedTuple):
    """What a named precision is in a `TrainSpec`; fields as there."""

    dtype: str
    tf32: bool


PRECISIONS = {
    "float32": Precision("float32", False),
    "tf32": Precision("float32", True),
    "bfloat16": Precision("bfloat16", False),
}


def product_precision(spec: TrainSpec, platform: str) -> str | None:
    """Value of `jax_default_matmul_precision` for a backend; None to leave it as it is."""
    if platform == "cpu" or spec.dtype == "bfloat16":
        return None
    return "tensorfloat32" if spec.tf32 else "highest"


def in_precision(
    function: Callable[Concatenate[TrainSpec, P], R],
) -> Callable[Concatenate[TrainSpec, P], R]:
    """A function of a spec, traced with the products that the spec asks for."""

    @functools.wraps(function)
    def traced(spec: TrainSpec, /, *args: P.args, **kwargs: P.kwargs) -> R:
        precision = product_precision(spec, jax.default_backend())
        if precision is None:
            return function(spec, *args, **kwargs)
        with jax.default_matmul_precision(precision):
            return function(spec, *args, **kwargs)

    return traced
