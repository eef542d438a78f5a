"""Convert names and layouts of torchvision's tensors to ours, and back."""

import re

import numpy as np

_LEAVES = {"running_mean": "mean", "running_var": "var"}
_STATISTICS = {ours: theirs for theirs, ours in _LEAVES.items()}


def our_name(name: str, ndim: int) -> str | None:
    """Return our name of a tensor: `layer1.0.norm1.scale` for `layer1.0.bn1.weight`.

    None for a counter, which our networks lack.

    Args:
        name: in a state_dict of torchvision's ResNets.
        ndim: the tensor's number of axes, which distinguishes a kernel from a scale.
    """
    module, _, leaf = name.rpartition(".")
    if leaf == "num_batches_tracked":
        return None
    module = re.sub(r"(^|\.)bn(\d*)$", r"\1norm\2", module)
    if leaf == "weight":
        leaf = "kernel" if ndim > 1 else "scale"
    return f"{module}.{_LEAVES.get(leaf, leaf)}".removeprefix(".")


def our_axes(ndim: int) -> tuple[int, ...]:
    """Return the order of axes for our layout: kernels OIHW to HWIO, matrices transposed."""
    return {4: (2, 3, 1, 0), 2: (1, 0)}.get(ndim, tuple(range(ndim)))


def our_layout(value: np.ndarray) -> np.ndarray:
    """Convert a tensor to our layout."""
    return np.ascontiguousarray(value.transpose(our_axes(value.ndim)))


def their_name(name: str) -> str:
    """Return torchvision's name of one of our tensors: `layer1.0.bn1.weight`.

    Args:
        name: ours, such as `layer1.0.norm1.scale`.
    """
    module, _, leaf = name.rpartition(".")
    module = re.sub(r"(^|\.)norm(\d*)$", r"\1bn\2", module)
    leaf = {"kernel": "weight", "scale": "weight", **_STATISTICS}.get(leaf, leaf)
    return f"{module}.{leaf}".removeprefix(".")


def their_layout(value: np.ndarray) -> np.ndarray:
    """Convert a tensor to PyTorch's layout: kernels HWIO to OIHW, matrices transposed."""
    axes = np.argsort(our_axes(value.ndim))
    return np.ascontiguousarray(value.transpose(axes))
