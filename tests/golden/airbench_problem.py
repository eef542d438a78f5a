"""The problem of the speedrun's reference: initial values and settings, from NumPy alone.

Names and layouts are those of `benchmarks/airbench_torch.py`. Images are `golden_problem.batch`.
"""

import math

import numpy as np
from golden_problem import Tensors, uniform

WIDTHS = (8, 12, 16)
STEPS = 20
RATE = 0.02
"""Of Muon. At the recipe's 0.24 rounding grows a thousandfold in ten steps."""
SHARE = 0.01
"""Of the rates of biases and head: they are for sums over 2,000 images and 256 channels."""
WHITENED = range(100, 104)
"""Batches whose images the first layer whitens."""


def initial_values() -> Tensors:
    """All trained parameters, float64 numbers that float32 represents exactly."""
    shapes: dict[str, tuple[int, ...]] = {"first.bias": (24,)}
    before = 24
    for index, width in enumerate(WIDTHS):
        shapes |= {
            f"groups.{index}.conv1.weight": (width, before, 3, 3),
            f"groups.{index}.conv2.weight": (width, width, 3, 3),
            f"groups.{index}.norm1.bias": (width,),
            f"groups.{index}.norm2.bias": (width,),
        }
        before = width
    shapes["head.weight"] = (10, before)
    values = {}
    for number, (name, shape) in enumerate(shapes.items()):
        drawn = 2 * uniform(70_000 + number, math.prod(shape)).reshape(shape) - 1
        drawn *= 3.0 if name == "head.weight" else math.sqrt(1 / math.prod(shape[1:]))
        drawn *= 0.1 if "bias" in name else 1
        values[name] = drawn.astype(np.float32).astype(np.float64)
    return values
