"""A network as a short list of operators with ONNX's names, for images in.

Every file format that we write, and the page that runs a network in a browser, read this list. Each
node has one output. Semantics are those of ONNX, opset 17, with these conventions:

- The input `IMAGES` is (N, H, W, C), uint8 or float32. All nodes compute in float32 or bool; the
  first casts uint8. Sizes are fixed, except that of images, N: in shapes it is -1.
- Constants are inputs like all others. What ONNX passes as tensors of integers or as an optional
  minimum is an attribute here: `shape`, `axes`, `starts`, `pads`, ...
- Images between `Conv` and `MaxPool` are (N, C, H, W), but nothing relies on it.

| operators | inputs | attributes |
|---|---|---|
| `Cast` | x | `to`: "float32" or "bool" |
| `Add Sub Mul Div Pow Max Min` | two, broadcast as in NumPy | |
| `Equal Less LessOrEqual Greater GreaterOrEqual And Or` | two, broadcast | |
| `Where` | bool condition, two values, broadcast | |
| `Relu Exp Log Tanh Sigmoid Sqrt Reciprocal Abs Neg Sign Erf Floor Ceil Sin Cos Not` | x | |
| `Conv` | x (N, C, ...), weight (O, C / group, ...), bias (O,) or none | `strides`, `pads`, \
`dilations`, `group` |
| `MaxPool` | x (N, C, ...) | `kernel_shape`, `strides`, `pads`, `dilations` |
| `AveragePool` | the same; padding counts as zeros | `kernel_shape`, `strides`, `pads` |
| `Gemm` | x (N, K), weight (K, M), bias (M,) or none | |
| `MatMul` | as `numpy.matmul` | |
| `ReduceSum ReduceMax ReduceMin` | x | `axes`, `keepdims`, always 0 |
| `Reshape` | x | `shape`; at most one size is -1, "what is left" |
| `Expand` | x | `shape`; broadcasts both ways: 1 keeps a size |
| `Transpose` | x | `perm` |
| `Slice` | x | `axes`, `starts`, `ends`, `steps`; a step may be negative |
| `Pad` | x | `pads`, `value` |
| `Concat` | one or more | `axis` |

`pads` are all sizes before the axes, then all sizes after them. Lists of `Conv` and pools are for
the axes from the third on, `pads` of `Pad` for all axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

IMAGES = "images"


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        op: ONNX's name.
        inputs: names of nodes' outputs, of constants, or `IMAGES`.
        output: its name.
        shape: of the output; -1 for the number of images.
        attributes: see this module's docstring.
        layer: path of the Flax module that it is of, such as "layer1/0/conv1"; may be empty.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network from images to logits.

    Attributes:
        image_shape: (H, W, C).
        nodes: each after the nodes whose outputs it reads.
        constants: float32 or bool, by name.
        output: name of the logits, float32 (N, classes).
        pixels: dtype of the images, "uint8" or "float32".
    """

    image_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    output: str
    pixels: str = "uint8"
