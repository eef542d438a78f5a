"""Trace a function of images to a graph."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from cifar_jax.export.builder import BATCH, Builder, Sizes, Tensor, constant
from cifar_jax.export.graph import IMAGES, Graph
from cifar_jax.export.operators import RULES, is_elementwise
from cifar_jax.export.rules import operand_dtype, result_shape
from cifar_jax.export.simplify import simplified

# Operations that only call a program, and its parameter's name.
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_LOOPS = ("scan", "while", "cond")
# Operations that return their operands.
_KEPT = ("copy", "copy_p", "device_put", "optimization_barrier", "stop_gradient")
# Never computed with constants alone: their results can be large, and cost nothing so.
_LAZY = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type")


def trace(
    function: Callable[[jax.Array], jax.Array], image_shape: Sizes, pixels: str = "uint8"
) -> Graph:
    """Return a function of images as a graph.

    Args:
        function: from images, (N, H, W, C), to logits, float (N, classes). No image may
            depend on another. Parameters are its constants. It computes with the plain layers:
            not a `FastModel`'s.
        image_shape: (H, W, C).
        pixels: dtype of the images, "uint8" or "float32".

    Raises:
        UserError: an operation has no operator; the message names its layer.
    """
    images = jax.ShapeDtypeStruct((BATCH, *image_shape), jnp.dtype(pixels))
    closed = jax.make_jaxpr(function)(images)
    builder = Builder()
    shape = images.shape
    given = Tensor(shape, IMAGES, shape, tuple(range(len(shape))))
    constants = [constant(np.asarray(value)) for value in closed.consts]
    (logits,) = _translate(builder, closed.jaxpr, constants, [given], "")
    builder.layer = "the logits"
    logits = builder.in_order(builder.full(logits))
    output = builder.name(logits)
    nodes = tuple(builder.nodes)
    return simplified(Graph(image_shape, nodes, builder.constants, output, pixels))


def _path(outer: str, eqn: JaxprEqn) -> str:
    """Return the path of an equation's layer, without the names of methods and transformations."""
    parts = str(eqn.source_info.name_stack).split("/")
    inner = [part for part in parts if part and "." not in part and "(" not in part]
    return "/".join(filter(None, (outer, *inner)))


def _translate(
    builder: Builder, jaxpr: Jaxpr, consts: list[Tensor], arguments: list[Tensor], layer: str
) -> list[Tensor]:
    """Add the nodes of a program, and return its results."""
    known: dict[Any, Tensor] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Tensor:
        return constant(atom.val) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        builder.layer = here = _path(layer, eqn)
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in _KEPT:
            known |= dict(zip(eqn.outvars, operands, strict=True))
            continue
        inner = next((eqn.params[key] for key in _CALLS if key in eqn.params), None)
        if inner is not None and eqn.primitive.name not in _LOOPS:
            body = getattr(inner, "jaxpr", inner)
            own = [constant(np.asarray(value)) for value in getattr(inner, "consts", ())]
            found = _translate(builder, body, own, operands, here)
        else:
            found = [_one(builder, eqn, operands)]
        known |= dict(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _one(builder: Builder, eqn: JaxprEqn, operands: list[Tensor]) -> Tensor:
    """Add the nodes of one operation, or compute it if its operands are constants."""
    name = eqn.primitive.name
    if name not in _LAZY and all(isinstance(x.data, np.ndarray) for x in operands):
        known = _computed(builder, eqn, operands)
        if known is not None:
            return known
    if name not in RULES:
        raise builder.unsupported(f"the operation {name}")
    return RULES[name](builder, eqn, *operands)


def _computed(builder: Builder, eqn: JaxprEqn, operands: list[Tensor]) -> Tensor | None:
    """Compute an operation of constants. Return None if its result has an axis of images."""
    name, shape = eqn.primitive.name, result_shape(eqn)
    arrays = [np.asarray(builder.in_order(x).data) for x in operands]
    if is_elementwise(name):
        # Axes along which all operands are the same stay short.
        arrays = [np.array(array) for array in np.broadcast_arrays(*arrays)]
    elif any(size > 0 and size % BATCH == 0 for size in shape) or len(eqn.outvars) > 1:
        return None
    else:
        arrays = [np.asarray(builder.full(x).data) for x in map(builder.in_order, operands)]
    arrays = [array.astype(operand_dtype(eqn, i)) for i, array in enumerate(arrays)]
    value = np.asarray(eqn.primitive.bind(*arrays, **eqn.params))
    return Tensor(shape, value, value.shape, tuple(range(len(shape))))
