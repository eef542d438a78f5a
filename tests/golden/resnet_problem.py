"""The problem of the residual networks' reference: initial values and batches, from NumPy alone.

Names and layouts are those of torchvision's ResNets.
"""

import math

import numpy as np
from golden_problem import CLASSES, Tensors, sketch, uniform

NORMS = ("none", "batch", "layer", "instance", "group")
COUNTED_NORMS = ("none", "batch", "group")
"""Those that differ in parameters: the others have as many as group norm."""
STEPS = 3
BATCH_SIZE = 4
IMAGE_SIZE = 16
NORM_GROUPS = 8
SMALL, SUMS = 40, 16
"""Tensors up to a size of `SMALL` are stored, larger ones as `SUMS` signed sums."""

Shapes = dict[str, tuple[int, ...]]


def initial_values(shapes: Shapes) -> Tensors:
    """Every tensor from its own stream; float64 numbers that float32 represents exactly.

    Kernels are uniform with He's variance, 2 / fan_out; scales lie around 1 and biases around 0, so
    that the gradient of each is that of a general point.
    """
    values = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        drawn = 2 * uniform(1000 + number, math.prod(shape)).reshape(shape) - 1
        if len(shape) == 4:
            drawn *= math.sqrt(6 / (shape[0] * shape[2] * shape[3]))
        elif len(shape) == 2:
            drawn /= math.sqrt(shape[1])
        else:
            drawn = 0.1 * drawn + (1 if name.endswith("weight") else 0)
        values[name] = drawn.astype(np.float32).astype(np.float64)
    return values


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (B, H, W, 3), in each a square pattern under noise; labels int64 (B,)."""
    shape = (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3)
    coarse = uniform(40_000 + seed, math.prod(shape) // 16).reshape(BATCH_SIZE, 4, 4, 3)
    pattern = coarse.repeat(IMAGE_SIZE // 4, axis=1).repeat(IMAGE_SIZE // 4, axis=2)
    noise = uniform(50_000 + seed, math.prod(shape)).reshape(shape)
    labels = (CLASSES * uniform(60_000 + seed, BATCH_SIZE)).astype(np.int64)
    return (128 * pattern + 127 * noise).astype(np.uint8), labels


def small(values: Tensors) -> Tensors:
    """What is stored of some tensors."""
    return {name: sketch(value, SMALL, SUMS) for name, value in values.items()}
