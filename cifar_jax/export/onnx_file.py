"""Write a graph as an ONNX file, and run it by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.export.graph import IMAGES, Graph, Node
from cifar_jax.export.plain import PlainNetwork, Reader

OPSET = 17
_IR = 8
# Attributes that ONNX takes as inputs, in their order.
_AS_INPUTS = {
    "Reshape": ("shape",),
    "Expand": ("shape",),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Pad": ("pads", "value"),
    "ReduceSum": ("axes",),
}
_TYPES = {"float32": 1, "uint8": 2, "bool": 9}  # onnx.TensorProto.DataType


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f'onnx: needs the packages of pip install -e ".[export]": {error.name} is missing'
        ) from None
    return onnx, onnxruntime


def onnx_model(graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """Return a graph as the content of an ONNX file, checked by ONNX's checker.

    Its input `images` is (N, H, W, C), its output `logits` float32 (N, classes); N is free.

    Args:
        graph: of a network.
        metadata: text for the file's `metadata_props`.

    Raises:
        UserError: a package is missing.
    """
    onnx, _ = _packages()
    helper = onnx.helper
    constants = dict(graph.constants)
    nodes = [_written(helper, node, constants) for node in graph.nodes]
    nodes.append(helper.make_node("Identity", [graph.output], ["logits"], name="logits"))
    images, logits = ["N", *graph.image_shape], ["N", graph.nodes[-1].shape[-1]]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info(IMAGES, _TYPES[graph.pixels], images)],
            [helper.make_tensor_value_info("logits", _TYPES["float32"], logits)],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR,
        producer_name="cifar_jax",
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _written(helper: Any, node: Node, constants: dict[str, np.ndarray]) -> Any:
    """Return a node in ONNX's form. Attributes that are inputs there become constants."""
    attributes = dict(node.attributes)
    inputs = list(node.inputs)
    for key in _AS_INPUTS.get(node.op, ()):
        value = attributes.pop(key)
        name = f"{node.output}.{key}"
        constants[name] = np.asarray(value, np.float32 if key == "value" else np.int64)
        inputs.append(name)
    if node.op == "Cast":
        attributes["to"] = _TYPES[attributes["to"]]
    if node.op == "AveragePool":
        attributes["count_include_pad"] = 1
    name = f"{node.layer or 'inputs'}/{node.output}"
    return helper.make_node(node.op, inputs, [node.output], name=name, **attributes)


def write(network: PlainNetwork, name: str) -> dict[str, bytes]:
    """Return a network as an ONNX file.

    Raises:
        UserError: a package is missing, or an operation of the network has no operator.
    """
    _packages()
    return {name: onnx_model(network.graph, network.metadata)}


def load(path: Path, network: PlainNetwork) -> Reader:
    """Open a file in ONNX Runtime, on the CPU."""
    _, onnxruntime = _packages()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Reader(
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda images: session.run(None, {IMAGES: images})[0],
    )
