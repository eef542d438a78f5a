"""Write a graph as a program of `torch.export`, which PyTorch runs without any other code."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.export.graph import IMAGES, Graph, Node
from cifar_jax.export.plain import PlainNetwork, Reader

_NAMES = {  # Functions of `torch` with another name than the operator in lower case.
    "Div": "true_divide",
    "Max": "maximum",
    "Min": "minimum",
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "And": "logical_and",
    "Or": "logical_or",
    "Not": "logical_not",
    "ReduceSum": "sum",
    "ReduceMax": "amax",
    "ReduceMin": "amin",
    "Pad": "pad",
    "Concat": "cat",
    "Transpose": "permute",
}


def _torch() -> Any:
    try:
        import torch
        import torch.export
    except ImportError:
        raise UserError("torch: needs PyTorch: pip install torch") from None
    return torch


def torch_reader(torch: Any, module: Any) -> Reader:
    """Return a module of PyTorch as a reader."""

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = module(torch.from_numpy(images.copy())).numpy()
        return found

    return Reader(f"PyTorch {torch.__version__}", logits)


def _pairs(pads: tuple[int, ...]) -> list[int]:
    """Return paddings in PyTorch's order: the last axis first, before and after it."""
    half = len(pads) // 2
    return [size for i in reversed(range(half)) for size in (pads[i], pads[half + i])]


def _padded(torch: Any, x: Any, node: Node, value: float) -> tuple[Any, dict[str, Any]]:
    """Pad a convolution's or pool's input, where PyTorch's argument cannot express it."""
    pads = node.attributes["pads"]
    half = len(pads) // 2
    if pads[:half] == pads[half:] and node.op == "Conv":
        return x, {"padding": pads[:half]}
    if any(pads):
        x = torch.nn.functional.pad(x, _pairs(pads), value=value)
    return x, {}


def _compute(torch: Any, node: Node, inputs: list[Any]) -> Any:
    """Compute a node with PyTorch."""
    nn, attributes, x = torch.nn.functional, node.attributes, inputs[0]
    match node.op:
        case "Cast":
            return x.to(getattr(torch, attributes["to"]))
        case "Conv":
            x, padding = _padded(torch, x, node, 0.0)
            convolve = getattr(nn, f"conv{x.ndim - 2}d")
            options = {"stride": attributes["strides"], "dilation": attributes["dilations"]}
            return convolve(x, *inputs[1:], groups=attributes["group"], **options, **padding)
        case "MaxPool":
            x, _ = _padded(torch, x, node, -math.inf)
            pool = getattr(nn, f"max_pool{x.ndim - 2}d")
            options = {"stride": attributes["strides"], "dilation": attributes["dilations"]}
            return pool(x, attributes["kernel_shape"], **options)
        case "AveragePool":
            x, _ = _padded(torch, x, node, 0.0)
            pool = getattr(nn, f"avg_pool{x.ndim - 2}d")
            return pool(x, attributes["kernel_shape"], stride=attributes["strides"])
        case "Gemm":
            return nn.linear(x, inputs[1].T, *inputs[2:])
        case "Reshape":
            return x.reshape(attributes["shape"])
        case "Expand":
            return torch.broadcast_to(x, _expanded(x.shape, attributes["shape"]))
        case "Slice":
            return _slice(torch, x, attributes)
        case "Pad":
            return nn.pad(x, _pairs(attributes["pads"]), value=attributes["value"])
    arguments: list[Any] = {
        "Concat": [inputs, attributes.get("axis")],
        "Transpose": [x, attributes.get("perm")],
    }.get(node.op, [*inputs, attributes["axes"]] if "axes" in attributes else inputs)
    return getattr(torch, _NAMES.get(node.op, node.op.lower()))(*arguments)


def _expanded(shape: Any, target: tuple[int, ...]) -> list[Any]:
    return [now if size == 1 else size for now, size in zip(shape, target, strict=True)]


def _slice(torch: Any, x: Any, attributes: Any) -> Any:
    for axis, start, end, step in zip(
        *(attributes[key] for key in ("axes", "starts", "ends", "steps")), strict=True
    ):
        if step < 0:  # Only whole axes are reversed.
            x = torch.flip(x, [axis])
        else:
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
    return x


def _module(torch: Any, graph: Graph) -> Any:
    """Return a graph as a PyTorch module. Its constants are buffers."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in graph.constants.items():
                self.register_buffer(name, torch.from_numpy(value.copy()))

        def forward(self, images: Any) -> Any:
            known = {IMAGES: images, **dict(self.named_buffers())}
            for node in graph.nodes:
                known[node.output] = _compute(torch, node, [known[name] for name in node.inputs])
            return known[graph.output]

    return Network().eval()


def write(network: PlainNetwork, name: str) -> dict[str, bytes]:
    """Return a network as a program of PyTorch, for any number of images.

    Raises:
        UserError: PyTorch is missing, or an operation of the network has no operator.
    """
    torch, graph = _torch(), network.graph
    example = torch.zeros((2, *network.image_shape), dtype=getattr(torch, network.pixels))
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.export.export(_module(torch, graph), (example,), dynamic_shapes=shapes)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=network.metadata)
    return {name: content.getvalue()}


def load(path: Path, network: PlainNetwork) -> Reader:
    """Open a file in PyTorch."""
    torch = _torch()
    return torch_reader(torch, torch.export.load(path).module())
