"""Where tensors with torchvision's names and layout belong in our networks."""

import re

import numpy as np

_LEAVES = {"running_mean": "mean", "running_var": "var"}


def our_name(name: str, ndim: int) -> str | None:
    """`layer1.0.bn1.weight` is `layer1.0.norm1.scale`; None for a counter, which has no place here.

    Args:
        name: in a state_dict of torchvision's ResNets.
        ndim: the tensor's number of axes, which tells a kernel from a scale.
    """
    module, _, leaf = name.rpartition(".")
    if leaf == "num_batches_tracked":
        return None
    module = re.sub(r"(^|\.)bn(\d*)$", r"\1norm\2", module)
    if leaf == "weight":
        leaf = "kernel" if ndim > 1 else "scale"
    return f"{module}.{_LEAVES.get(leaf, leaf)}".removeprefix(".")


def our_axes(ndim: int) -> tuple[int, ...]:
    """Order of a tensor's axes here: kernels OIHW to HWIO, matrices transposed."""
    return {4: (2, 3, 1, 0), 2: (1, 0)}.get(ndim, tuple(range(ndim)))


def our_layout(value: np.ndarray) -> np.ndarray:
    """The tensor as it is kept here."""
    return np.ascontiguousarray(value.transpose(our_axes(value.ndim)))
