"""The problem of the golden trajectory: initial values, batches and how results are compared.

Names and layouts are PyTorch's. All numbers come from NumPy's raw stream of PCG64, which NumPy
promises never to change (NEP 19), so the problem need not be stored.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

STEPS = 20
BATCH_SIZE = 8
IMAGE_SIZE = 32
CLASSES = 10
WIDTHS = (32, 64, 128)
HIDDEN = 256
NORM_GROUPS = 8
DECAY_AFTER = 15
"""Steps at the first learning rate: the trajectory goes over one drop."""

# fmt: off
BATCH_SEEDS: dict[str, tuple[int, ...]] = {
    "none": (
        12, 32, 118, 165, 168, 179, 277, 300, 321, 328,
        366, 421, 431, 454, 475, 509, 512, 513, 574, 596,
    ),
    "batch": (
        95, 127, 197, 217, 223, 242, 251, 258, 266, 299,
        362, 382, 429, 438, 453, 492, 504, 512, 524, 556,
    ),
    "layer": (
        25, 75, 113, 118, 237, 517, 560, 567, 595, 786,
        918, 1058, 1089, 1099, 1222, 1577, 1595, 1614, 1632, 1676,
    ),
    "instance": (
        59, 85, 99, 126, 128, 136, 145, 152, 185, 191,
        206, 207, 230, 233, 252, 263, 290, 329, 343, 352,
    ),
    "group": (
        59, 107, 111, 131, 163, 198, 236, 250, 320, 407,
        446, 483, 504, 597, 622, 892, 919, 1024, 1051, 1141,
    ),
}
# fmt: on
"""Batches of each norm's run, found by `make_reference.py --search`.

ReLU and max pool jump in their gradient. An input of theirs that is closer to the jump than
rounding falls on either side of it, and what follows differs by far more than rounding. So the
batches are those in whose forward pass, when their turn comes, no input is that close.
"""

Tensors = dict[str, np.ndarray]

FULL_SIZE = 4096
"""Tensors up to this size are compared entry by entry, larger ones by their sketch."""
SKETCH_SIZE = 1024


def uniform(seed: int, size: int) -> np.ndarray:
    """Float64 (size,) in [0, 1)."""
    return (np.random.PCG64(seed).random_raw(size) >> np.uint64(11)) * 2.0**-53


def initial_parameters(norm: str) -> Tensors:
    """Weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); norms at 1 and 0.

    Float64 arrays of numbers that float32 represents exactly, so that both precisions start equal.
    """
    channels = (3, *WIDTHS)
    features = (IMAGE_SIZE // 2 ** len(WIDTHS)) ** 2 * WIDTHS[-1]
    shapes: dict[str, tuple[int, ...]] = {
        f"conv{i}": (channels[i], channels[i - 1], 3, 3) for i in range(1, len(channels))
    }
    shapes |= {"dense1": (HIDDEN, features), "dense2": (CLASSES, HIDDEN)}
    parameters = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        size, fan_in = math.prod(shape), math.prod(shape[1:])
        values = (2 * uniform(seed, size + shape[0]) - 1) / math.sqrt(fan_in)
        values = values.astype(np.float32).astype(np.float64)
        parameters[f"{name}.weight"] = values[:size].reshape(shape)
        parameters[f"{name}.bias"] = values[size:]
    if norm != "none":
        # A dense layer has no instance norm.
        widths = WIDTHS if norm == "instance" else (*WIDTHS, HIDDEN)
        for i, width in enumerate(widths, start=1):
            parameters[f"norm{i}.weight"] = np.ones(width)
            parameters[f"norm{i}.bias"] = np.zeros(width)
    return parameters


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (B, H, W, 3), in each a class's pattern of 8x8 squares under noise; labels
    int64 (B,).
    """
    side = IMAGE_SIZE // 4
    pattern = uniform(100, CLASSES * 4 * 4 * 3).reshape(CLASSES, 4, 4, 3)
    pattern = pattern.repeat(side, axis=1).repeat(side, axis=2)
    labels = (CLASSES * uniform(10_000 + seed, BATCH_SIZE)).astype(np.int64)
    shape = (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3)
    noise = uniform(20_000 + seed, math.prod(shape)).reshape(shape)
    return (64 * pattern[labels] + 192 * noise).astype(np.uint8), labels


def sketch(tensor: np.ndarray, full: int = FULL_SIZE, size: int = SKETCH_SIZE) -> np.ndarray:
    """Tensors up to `full` as they are, larger as `size` sums with fixed random signs, float64.

    The sums are linear and every entry is in one of them, so that no difference goes unseen: the
    squared L2 norm of the sketch of a difference estimates that of the difference, of 1024 sums to
    about 4 %.
    """
    flat = tensor.astype(np.float64).ravel()
    if flat.size <= full:
        return flat
    bits = np.random.PCG64(200).random_raw(flat.size) >> np.uint64(63)
    return (flat * (1 - 2.0 * bits)).reshape(-1, size).sum(axis=0)


def relative_errors(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict:
    """Relative L2 error of each tensor."""
    assert actual.keys() == expected.keys()
    errors = {}
    for name, reference in expected.items():
        assert actual[name].shape == reference.shape, name
        difference = np.linalg.norm(actual[name].astype(np.float64) - reference)
        errors[name] = float(difference / np.linalg.norm(reference))
    return errors


def above(errors: Mapping[str, float], limit: float) -> Iterable[tuple[str, float]]:
    """The errors that are too large, NaN included."""
    return [(name, error) for name, error in errors.items() if not error <= limit]
