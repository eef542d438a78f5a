"""The section of the page in which trained networks answer for an image of the reader.

templates/demo.js runs it in the browser. It reads the JSON that this module makes:

- `size`: [height, width] of the network's images.
- `classes`: names.
- `arms`: each with `label`, `what`, `colour`, `temperature`, or null, and `networks`.
- `tests`: test images, or null: `pixels`, uint8 (N, H, W, 3) in base64; `labels`; `numbers`, their
  positions in the test set.

A network has `nodes`, [operator, inputs, output, attributes], see cifar_jax/export/graph.py;
`output`, the name of its logits; `constants`, a type, shape and position in bytes for each name;
`weights`, all constants in base64; `logits`, those that training recorded for the test images.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from cifar_jax.errors import UserError, counted
from cifar_jax.export.graph import Graph

_LARGEST_HALF = 65504.0  # of float16
_OF_IMAGES = ("Conv", "MaxPool", "AveragePool")
_FEW = 256  # values; a smaller constant keeps float32


@dataclass(frozen=True)
class Demo:
    """The section. `reason` says why the page cannot answer; it then has no `data`.

    Attributes:
        data: see this module.
        notes: sentences about the networks and the confidences.
    """

    data: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def several(self) -> bool:
        """Whether several arms answer."""
        return self.data is None or len(self.data["arms"]) > 1

    @property
    def json(self) -> Markup:
        """The data as JSON that cannot end the element that it is in."""
        text = json.dumps(self.data, separators=(",", ":"), allow_nan=False)
        return Markup(text.replace("<", "\\u003c"))


def pack(graph: Graph) -> dict[str, Any]:
    """Return a network as JSON, see this module. It lacks `logits`.

    Weights are rounded to float16. Vectors, small constants and those beyond its range keep
    float32.

    Raises:
        UserError: the page cannot run it.
    """
    if graph.image_shape[-1] != 3:
        raise UserError(f"its images have {counted(graph.image_shape[-1], 'channel')}, not 3")
    for node in graph.nodes:
        if node.op in _OF_IMAGES and len(node.shape) != 4:
            raise UserError(f"layer {node.layer}: {node.op} has {len(node.shape) - 2} dimensions")
    constants, weights = _stored(graph.constants)
    return {
        "nodes": [[n.op, n.inputs, n.output, _plain(n.attributes)] for n in graph.nodes],
        "output": graph.output,
        "constants": constants,
        "weights": weights,
    }


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes that JSON can have. It has no infinity: JavaScript reads its name."""
    return {
        name: str(value).replace("inf", "Infinity") if value in (np.inf, -np.inf) else value
        for name, value in attributes.items()
    }


def _stored(constants: Mapping[str, np.ndarray]) -> tuple[dict[str, list[Any]], str]:
    """Return type, shape and position of each constant, and all of them in base64."""
    entries, content = {}, bytearray()
    for name, value in constants.items():
        found = np.asarray(value, np.float32)
        half = found.ndim > 1 and found.size > _FEW and np.abs(found).max() <= _LARGEST_HALF
        entries[name] = ["float16" if half else "float32", list(found.shape), len(content)]
        content += found.astype("<f2" if half else "<f4").tobytes()
        content += bytes(-len(content) % 4)
    return entries, encode(content)


def encode(content: Iterable[int]) -> str:
    """Return bytes in base64."""
    return base64.b64encode(bytes(content)).decode()
