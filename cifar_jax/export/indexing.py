"""Translate slices, padding and concatenation to operators of a graph."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jax.extend.core import JaxprEqn

from cifar_jax.export.builder import Builder, Sizes, Tensor
from cifar_jax.export.rules import Rule, pads_of, permuted, result_shape


def _sliced(builder: Builder, x: Tensor, shape: Sizes, parts: Mapping[int, Sizes]) -> Tensor:
    """Cut (start, end, step) out of axes of the program. Axes with one value stay."""
    sizes = tuple(min(a, b) for a, b in zip(shape, x.sizes, strict=True))
    cut = [axis for axis in x.order if axis in parts and x.sizes[axis] != 1]
    like = replace(x, shape=shape, sizes=sizes)
    if not cut:
        return like
    starts, ends, steps = (tuple(int(parts[a][i]) for a in cut) for i in range(3))
    axes = tuple(x.order.index(a) for a in cut)
    return builder.add("Slice", [x], like, axes=axes, starts=starts, ends=ends, steps=steps)


def _slice(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(starts)
    parts = {
        axis: part
        for axis, part in enumerate(zip(starts, ends, steps, strict=True))
        if part != (0, x.shape[axis], 1)
    }
    return _sliced(builder, x, result_shape(eqn), parts)


def _dynamic_slice(builder: Builder, eqn: JaxprEqn, x: Tensor, *starts: Tensor) -> Tensor:
    parts = {}
    for axis, (start, size) in enumerate(zip(starts, eqn.params["slice_sizes"], strict=True)):
        if not isinstance(start.data, np.ndarray):
            raise builder.unsupported("a slice whose place is computed")
        first = min(max(int(start.data), 0), x.shape[axis] - size)
        if size != x.shape[axis]:
            parts[axis] = (first, first + size, 1)
    return _sliced(builder, x, result_shape(eqn), parts)


def _along(builder: Builder, values: np.ndarray) -> tuple[int | None, int, int, int]:
    """Describe indices that grow evenly along one axis: the axis, start, step and number.

    The axis is None if all indices are equal.
    """
    moving = [axis for axis in range(values.ndim) if np.ptp(values, axis=axis).any()]
    if not moving:
        return None, int(values.flat[0]), 1, 1
    line = np.moveaxis(values, moving[0], 0).reshape(values.shape[moving[0]], -1)[:, 0]
    start, step = int(line[0]), int(line[1] - line[0])
    if len(moving) > 1 or step < 1 or np.any(np.diff(line) != step):
        raise builder.unsupported("indexing by a list")
    return moving[0], start, step, len(line)


def _gather(builder: Builder, eqn: JaxprEqn, x: Tensor, indices: Tensor) -> Tensor:
    """Cut slices with fixed steps: some versions index so by slices and numbers."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    fixed = isinstance(indices.data, np.ndarray)
    if not fixed or getattr(numbers, "operand_batching_dims", None):
        raise builder.unsupported("indexing by computed numbers")
    grid = np.asarray(builder.full(builder.in_order(indices)).data)
    shape, parts, source = list(x.shape), {}, {}
    for i, axis in enumerate(numbers.start_index_map):
        moving, start, step, count = _along(builder, grid[..., i])
        if moving is not None:
            source[moving] = axis
        if count > 1 and sizes[axis] != 1:
            raise builder.unsupported("indexing by overlapping slices")
        parts[axis] = (start, start + step * (count - 1) + sizes[axis], step)
        shape[axis] = count * sizes[axis]
    cut = _sliced(builder, x, tuple(shape), parts)
    kept = iter(axis for axis in range(len(shape)) if axis not in numbers.collapsed_slice_dims)
    found = iter(range(grid.ndim - 1))
    axes = [
        next(kept) if axis in numbers.offset_dims else source.get(next(found))
        for axis in range(len(result_shape(eqn)))
    ]
    named = [axis for axis in axes if axis is not None]
    single = [axis for axis in range(len(shape)) if axis not in named]
    return builder.reshaped(permuted(cut, (*named, *single)), result_shape(eqn))


def _reverse(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    parts = dict.fromkeys(eqn.params["dimensions"], (-1, -(1 << 31), -1))
    return _sliced(builder, x, x.shape, parts)


def _pad(builder: Builder, eqn: JaxprEqn, x: Tensor, value: Tensor) -> Tensor:
    padding = eqn.params["padding_config"]
    if not isinstance(value.data, np.ndarray) or any(p[2] or min(p[:2]) < 0 for p in padding):
        raise builder.unsupported("this padding")
    x, shape = builder.full(x), result_shape(eqn)
    pads = pads_of([padding[axis] for axis in x.order])
    return builder.add(
        "Pad", [x], Tensor(shape, "", shape, x.order), pads=pads, value=float(value.data)
    )


def _concatenate(builder: Builder, eqn: JaxprEqn, *parts: Tensor) -> Tensor:
    order = max(parts, key=lambda x: (isinstance(x.data, str), math.prod(x.sizes))).order
    ready = [builder.arranged(builder.full(x), order) for x in parts]
    shape = result_shape(eqn)
    axis = order.index(eqn.params["dimension"])
    return builder.add("Concat", ready, Tensor(shape, "", shape, order), axis=axis)


INDEXING: dict[str, Rule] = {
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "rev": _reverse,
    "pad": _pad,
    "concatenate": _concatenate,
}
