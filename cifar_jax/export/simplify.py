"""Shorten a graph: fold constants into convolutions, and drop what has no effect."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from cifar_jax.export.graph import Graph, Node

_WEIGHTED = ("Conv", "Gemm")
_LINEAR = ("Add", "Mul")


def simplified(graph: Graph) -> Graph:
    """Return an equal graph with fewer nodes, up to rounding.

    Constant factors and terms of each channel become part of the weights of a convolution or dense
    layer. So does Batch Normalization. Others merge. It computes in float64, and rounds once.
    """
    work = _Work(dict(graph.constants), Counter())
    work.uses.update(name for node in graph.nodes for name in node.inputs)
    work.uses[graph.output] += 1
    for node in graph.nodes:
        work.push(node)
    return _without_unused(replace(graph, nodes=tuple(work.nodes.values()), constants=work.exact))


def _without_unused(graph: Graph) -> Graph:
    needed = {graph.output}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    constants = {
        name: value if value.dtype == np.bool_ else np.ascontiguousarray(value, np.float32)
        for name, value in graph.constants.items()
        if name in needed
    }
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)


@dataclass
class _Work:
    """Nodes so far by output, constants in the widest dtype, and how often each name is read."""

    exact: dict[str, np.ndarray]
    uses: Counter[str]
    nodes: dict[str, Node] = field(default_factory=dict)

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.exact)}"
        self.exact[name] = value
        return name

    def only(self, name: str) -> Node | None:
        """Return the node that computes a value, if one node reads it."""
        return self.nodes.get(name) if self.uses[name] == 1 else None

    def push(self, node: Node) -> None:
        """Add a node, merged with the one before it where that is possible."""
        if node.op in _LINEAR and self._linear(node):
            return
        before = self.only(node.inputs[0])
        if before is not None and node.op == before.op == "Reshape":
            del self.nodes[before.output]
            node = replace(node, inputs=before.inputs)
        if node.op == "Gemm":
            node = self._without_transpose(node)
        self.nodes[node.output] = node

    def _linear(self, node: Node) -> bool:
        """Merge `x + c` or `x * c` with the node of x. Return whether that was possible."""
        first, second = node.inputs
        x, c = (first, second) if second in self.exact else (second, first)
        before = self.only(x)
        if c not in self.exact or x in self.exact or before is None:
            return False
        value = self.exact[c].astype(np.float64)
        if before.shape != node.shape:
            return False
        if before.op in _WEIGHTED:
            return self._into_weights(node, before, value)
        if before.op not in _LINEAR or not any(name in self.exact for name in before.inputs):
            return False
        y, d = before.inputs if before.inputs[1] in self.exact else reversed(before.inputs)
        other = self.exact[d].astype(np.float64)
        both = value * other if node.op == "Mul" else value + other
        shape = self.nodes[y].shape if y in self.nodes else None
        if (node.op, before.op) == ("Add", "Mul") or shape != node.shape:
            return False
        if both.size > max(value.size, other.size):
            return False
        del self.nodes[x]
        if node.op == before.op:
            self.push(replace(node, inputs=(y, self.constant(both))))
        else:  # (y + other) * value = y * value + other * value
            self.push(replace(before, op="Mul", inputs=(y, self.constant(value))))
            self.push(replace(node, op="Add", inputs=(x, self.constant(both))))
        return True

    def _into_weights(self, node: Node, before: Node, value: np.ndarray) -> bool:
        channels = before.shape[1]
        sizes = (1,) * (len(before.shape) - value.ndim) + value.shape
        if any(size != 1 for axis, size in enumerate(sizes) if axis != 1):
            return False
        if before.inputs[1] not in self.exact:
            return False
        each = np.broadcast_to(value.reshape(-1), channels)
        x, weight, *bias = before.inputs
        old = self.exact[bias[0]].astype(np.float64) if bias else np.zeros(channels)
        if node.op == "Mul":
            axis = 0 if before.op == "Conv" else 1
            kernel = self.exact[weight].astype(np.float64)
            shape = [channels if i == axis else 1 for i in range(kernel.ndim)]
            weight = self.constant(kernel * each.reshape(shape))
            bias = [self.constant(old * each)] if bias else []
        else:
            bias = [self.constant(old + each)]
        del self.nodes[before.output]
        self.nodes[node.output] = replace(before, inputs=(x, weight, *bias), output=node.output)
        return True

    def _without_transpose(self, node: Node) -> Node:
        """Reorder a dense layer's weights instead of the features that are flattened for it."""
        reshape = self.only(node.inputs[0])
        if reshape is None or reshape.op != "Reshape":
            return node
        transpose = self.only(reshape.inputs[0])
        if transpose is None or transpose.op != "Transpose" or reshape.shape[0] != -1:
            return node
        perm, sizes = transpose.attributes["perm"], transpose.shape[1:]
        weight = self.exact[node.inputs[1]]
        if perm[0] != 0 or math.prod(sizes) != len(weight):
            return node
        back = np.argsort(perm[1:])
        grid = weight.reshape(*sizes, -1).transpose(*back, len(sizes))
        del self.nodes[reshape.output], self.nodes[transpose.output]
        self.nodes[reshape.output] = replace(reshape, inputs=transpose.inputs)
        return replace(
            node,
            inputs=(node.inputs[0], self.constant(grid.reshape(weight.shape)), *node.inputs[2:]),
        )
