"""Build a graph's nodes from tensors that remember the order of their axes.

A traced program has its own order of axes, such as (N, H, W, C). `Conv` and `MaxPool` want
(N, C, H, W). So a `Tensor` says which of the program's axes each axis of its data is. A transpose
changes only this order. Data move when an operator needs another order. That is rare: a network of
convolutions moves them once at its start and once at its end.

The program is traced with `BATCH` images. This number is a prime, so a size that is a multiple of
it depends on the number of images.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.export.graph import IMAGES, Node

BATCH = 1009
_SMALL = 64  # values; smaller constants are kept once

Sizes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the traced program.

    Attributes:
        shape: as the program sees it.
        data: name of a node's output, or a constant.
        sizes: of the data, in the program's order. 1 instead of the size in `shape` where all
            values along an axis are the same: broadcasting is put off.
        order: axis i of the data is the program's axis `order[i]`.
    """

    shape: Sizes
    data: str | np.ndarray
    sizes: Sizes
    order: Sizes

    @property
    def stored(self) -> Sizes:
        """Shape of the data."""
        return tuple(self.sizes[axis] for axis in self.order)


def constant(value: Any) -> Tensor:
    """Return an array as a tensor."""
    array = np.asarray(value)
    return Tensor(array.shape, array, array.shape, tuple(range(array.ndim)))


def _has_batch(size: int) -> bool:
    return size > 0 and size % BATCH == 0


def _groups(before: Sizes, after: Sizes) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into independent parts: axes before, and axes after, of equal size."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(left), j + len(right)
        while (sizes := [math.prod(before[a] for a in left), math.prod(after[a] for a in right)])[
            0
        ] != sizes[1]:
            if sizes[0] < sizes[1]:
                left, i = [*left, i], i + 1
            else:
                right, j = [*right, j], j + 1
        found.append((left, right))
    return found


@dataclass
class Builder:
    """Nodes and constants so far. `layer` is the path of the layer that is translated now."""

    layer: str = ""
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    _known: dict[Any, str] = field(default_factory=dict)

    def unsupported(self, what: str) -> UserError:
        """Return the error for an operation, in the field's words."""
        where = f"layer {self.layer}" if self.layer else "the network's inputs"
        return UserError(f"{where}: {what} has no operator in this format")

    def size(self, size: int) -> int:
        """Return a size as a graph has it: -1 for the number of images."""
        return -1 if _has_batch(size) else int(size)

    def name(self, tensor: Tensor) -> str:
        """Return the name of a tensor's data. Constants become constants of the graph."""
        if isinstance(tensor.data, str):
            return tensor.data
        array = tensor.data
        if any(_has_batch(size) for size in array.shape):
            raise self.unsupported("a constant for each image")
        if array.dtype != np.bool_:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= _SMALL else None
        if key is not None and key in self._known:
            return self._known[key]
        name = f"c{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array)
        if key is not None:
            self._known[key] = name
        return name

    def add(self, op: str, inputs: Sequence[Tensor], like: Tensor, **attributes: Any) -> Tensor:
        """Add a node. `like` has the output's shape, sizes and order."""
        names = tuple(self.name(tensor) for tensor in inputs)
        output = f"v{len(self.nodes)}"
        shape = tuple(map(self.size, like.stored))
        self.nodes.append(Node(op, names, output, shape, attributes, self.layer))
        return replace(like, data=output)

    def stored_as(self, tensor: Tensor, shape: Sizes) -> str | np.ndarray:
        """Return the data in another shape, with the same order of values."""
        if shape == tensor.stored:
            return tensor.data
        if isinstance(tensor.data, np.ndarray):
            return tensor.data.reshape(shape)
        target = tuple(map(self.size, shape))
        if target.count(-1) > 1:
            raise self.unsupported("a reshape with the number of images in two axes")
        like = Tensor(shape, "", shape, tuple(range(len(shape))))
        return self.add("Reshape", [tensor], like, shape=target).data

    def arranged(self, tensor: Tensor, order: Sizes) -> Tensor:
        """Return a tensor whose data have this order of axes."""
        if order == tensor.order:
            return tensor
        like = replace(tensor, order=order)
        long = [[axis for axis in o if tensor.sizes[axis] != 1] for o in (order, tensor.order)]
        if long[0] == long[1]:
            return replace(like, data=self.stored_as(tensor, like.stored))
        perm = tuple(tensor.order.index(axis) for axis in order)
        if isinstance(tensor.data, np.ndarray):
            return replace(like, data=tensor.data.transpose(perm))
        return self.add("Transpose", [tensor], like, perm=perm)

    def in_order(self, tensor: Tensor) -> Tensor:
        """Return a tensor whose data have the program's order of axes."""
        return self.arranged(tensor, tuple(range(len(tensor.shape))))

    def full(self, tensor: Tensor) -> Tensor:
        """Return a tensor whose data have the size of its shape in every axis."""
        if tensor.sizes == tensor.shape:
            return tensor
        like = replace(tensor, sizes=tensor.shape)
        wanted = like.stored
        if isinstance(tensor.data, np.ndarray) and not any(map(_has_batch, wanted)):
            return replace(like, data=np.broadcast_to(tensor.data, wanted))
        for axis, (size, now) in enumerate(zip(wanted, tensor.stored, strict=True)):
            if now != size and _has_batch(size):
                tensor = self._for_each_image(tensor, axis)
        if tensor.sizes == tensor.shape:
            return tensor
        target = tuple(1 if _has_batch(size) else size for size in wanted)
        return self.add("Expand", [tensor], like, shape=target)

    def _for_each_image(self, tensor: Tensor, axis: int) -> Tensor:
        """Repeat a tensor for each image, by a product with ones, along an axis of its data."""
        program_axis = tensor.order[axis]
        if tensor.shape[program_axis] != BATCH:
            raise self.unsupported("a constant for each image")
        pixels = Tensor((BATCH,), IMAGES, (BATCH,), (0,))
        zeros = self.add(
            "Cast",
            [self.add("ReduceMax", [pixels], pixels, axes=(1, 2, 3), keepdims=0)],
            pixels,
            to="float32",
        )
        zeros = self.add("Mul", [zeros, constant(np.float32(0))], pixels)
        ones = self.add("Add", [zeros, constant(np.float32(1))], pixels)
        shape = tuple(BATCH if i == axis else 1 for i in range(len(tensor.shape)))
        ones = Tensor(shape, self.stored_as(ones, shape), shape, tuple(range(len(shape))))
        sizes = tuple(BATCH if i == program_axis else n for i, n in enumerate(tensor.sizes))
        return self.add("Mul", [tensor, ones], replace(tensor, sizes=sizes))

    def reshaped(self, tensor: Tensor, shape: Sizes) -> Tensor:
        """Return a tensor in another shape, as the program sees it.

        Where each group of axes that are merged is in order in the data, they do not move.
        """
        groups = _groups(tensor.shape, shape)
        for left, _ in groups:
            partly = {tensor.sizes[axis] == tensor.shape[axis] for axis in left} == {True, False}
            if partly and any(tensor.sizes[axis] != 1 for axis in left):
                tensor = self.full(tensor)
        place = {axis: i for i, axis in enumerate(tensor.order)}
        for left, _ in groups:
            if any(place[b] != place[a] + 1 for a, b in itertools.pairwise(left)):
                tensor = self.in_order(tensor)
                place = {axis: i for i, axis in enumerate(tensor.order)}
                break
        sizes = list(shape)
        for left, right in groups:
            if left and all(tensor.sizes[axis] == 1 for axis in left):
                for axis in right:
                    sizes[axis] = 1
        ordered = sorted(groups, key=lambda g: place[g[0][0]] if g[0] else len(place))
        order = tuple(axis for _, right in ordered for axis in right)
        stored = tuple(sizes[axis] for axis in order)
        return Tensor(shape, self.stored_as(tensor, stored), tuple(sizes), order)

    def broadcast(self, tensor: Tensor, shape: Sizes, axes: Sizes) -> Tensor:
        """Return a tensor in a larger shape: axis i becomes `axes[i]`. No data are copied."""
        sizes = [1] * len(shape)
        for axis, size in zip(axes, tensor.sizes, strict=True):
            sizes[axis] = size
        new = [axis for axis in range(len(shape)) if axis not in axes]
        order = (*(axes[axis] for axis in tensor.order), *new)
        stored = tuple(sizes[axis] for axis in order)
        return Tensor(shape, self.stored_as(tensor, stored), tuple(sizes), order)
