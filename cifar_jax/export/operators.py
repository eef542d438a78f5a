"""Translate each primitive of JAX to operators of a graph."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from cifar_jax.export.builder import Builder, Tensor, constant
from cifar_jax.export.indexing import INDEXING
from cifar_jax.export.rules import Rule, operand_dtype, pads_of, permuted, result_shape

_SAME = {
    **{name: name.capitalize() for name in ("add", "sub", "mul", "div", "pow", "max", "min")},
    **{name: name.capitalize() for name in ("exp", "log", "tanh", "sqrt", "abs", "neg", "sign")},
    **{name: name.capitalize() for name in ("erf", "floor", "ceil", "sin", "cos", "not")},
    "add_any": "Add",
    "logistic": "Sigmoid",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "and": "And",
    "or": "Or",
}


def _scalar(value: float) -> Tensor:
    return constant(np.float32(value))


def elementwise(builder: Builder, op: str, *operands: Tensor, **attributes: Any) -> Tensor:
    """Add an operator of each position. Operands have equal shapes, or are scalars."""
    big = [x for x in operands if x.shape] or list(operands)
    # Most data decide the order of axes: constants and small tensors follow.
    first = max(big, key=lambda x: (math.prod(x.sizes), isinstance(x.data, str)))
    ready = [builder.arranged(x, first.order) if x.shape else x for x in operands]
    sizes = tuple(max(axis) for axis in zip(*(x.sizes for x in ready if x.shape), strict=True))
    return builder.add(op, ready, replace(first, sizes=sizes), **attributes)


def is_elementwise(name: str) -> bool:
    """Return whether a primitive computes each position of its result alone."""
    return name in _SAME or name in _FORMULAS or name in ("max", "select_n", "clamp")


_OPPOSITE = {"Sub": "Add", "Div": "Mul"}


def _named(op: str) -> Rule:
    def rule(builder: Builder, eqn: JaxprEqn, *operands: Tensor) -> Tensor:
        if op in ("Sub", "Div") and isinstance(operands[1].data, np.ndarray):
            value = operands[1].data.astype(np.float64)
            opposite = replace(operands[1], data=-value if op == "Sub" else 1 / value)
            return elementwise(builder, _OPPOSITE[op], operands[0], opposite)
        return elementwise(builder, op, *operands)

    return rule


def _is_zero(tensor: Tensor) -> bool:
    return isinstance(tensor.data, np.ndarray) and not np.any(tensor.data)


def _max(builder: Builder, eqn: JaxprEqn, a: Tensor, b: Tensor) -> Tensor:
    for x, other in ((a, b), (b, a)):
        if _is_zero(other):
            return elementwise(builder, "Relu", x)
    return elementwise(builder, "Max", a, b)


def _select(builder: Builder, eqn: JaxprEqn, which: Tensor, *cases: Tensor) -> Tensor:
    if len(cases) != 2 or operand_dtype(eqn) != np.bool_:
        raise builder.unsupported("a selection among several values")
    return elementwise(builder, "Where", which, cases[1], cases[0])


def _clamp(builder: Builder, eqn: JaxprEqn, low: Tensor, x: Tensor, high: Tensor) -> Tensor:
    return elementwise(builder, "Min", elementwise(builder, "Max", x, low), high)


def _power(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    exponent = eqn.params["y"]
    if exponent == 2:
        return elementwise(builder, "Mul", x, x)
    return elementwise(builder, "Pow", x, _scalar(exponent))


def _formula(build: Callable[..., Tensor]) -> Rule:
    """Return the rule of a primitive that is a formula of other operators."""

    def rule(builder: Builder, eqn: JaxprEqn, *operands: Tensor) -> Tensor:
        return build(lambda op, *x: elementwise(builder, op, *x), *operands)

    return rule


_FORMULAS: dict[str, Callable[..., Tensor]] = {
    "square": lambda f, x: f("Mul", x, x),
    "rsqrt": lambda f, x: f("Reciprocal", f("Sqrt", x)),
    "log1p": lambda f, x: f("Log", f("Add", x, _scalar(1))),
    "expm1": lambda f, x: f("Add", f("Exp", x), _scalar(-1)),
    "exp2": lambda f, x: f("Exp", f("Mul", x, _scalar(math.log(2)))),
    "erfc": lambda f, x: f("Add", f("Neg", f("Erf", x)), _scalar(1)),
    "ne": lambda f, a, b: f("Not", f("Equal", a, b)),
}


def _cast(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    """Floats are float32 in a graph, whatever the program's precision."""
    before, after = operand_dtype(eqn), eqn.params["new_dtype"]
    if isinstance(x.data, np.ndarray):
        return replace(x, data=x.data.astype(np.bool_ if after == np.bool_ else np.float32))
    if after == np.bool_:
        return builder.add("Cast", [x], x, to="bool")
    if not np.issubdtype(after, np.integer):
        is_float = not (np.issubdtype(before, np.integer) or before == np.bool_)
        return x if is_float else builder.add("Cast", [x], x, to="float32")
    raise builder.unsupported(f"a conversion to {after}")


def _broadcast(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    return builder.broadcast(x, result_shape(eqn), eqn.params["broadcast_dimensions"])


def _reshape(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    return builder.reshaped(x, result_shape(eqn))


def _transpose(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
    perm = eqn.params["permutation"]
    pick = lambda sizes: tuple(sizes[axis] for axis in perm)  # noqa: E731
    return Tensor(pick(x.shape), x.data, pick(x.sizes), tuple(perm.index(a) for a in x.order))


def _reduce(op: str) -> Rule:
    def rule(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
        axes = eqn.params["axes"]
        x = builder.full(x)
        left = [axis for axis in range(len(x.shape)) if axis not in axes]
        shape = tuple(x.shape[axis] for axis in left)
        like = Tensor(shape, "", shape, tuple(left.index(a) for a in x.order if a in left))
        places = tuple(i for i, axis in enumerate(x.order) if axis in axes)
        return builder.add(op, [x], like, axes=places, keepdims=0)

    return rule


def _convolve(builder: Builder, eqn: JaxprEqn, x: Tensor, weight: Tensor) -> Tensor:
    params = eqn.params
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
        raise builder.unsupported("a transposed convolution")
    if min(map(min, params["padding"]), default=0) < 0:
        raise builder.unsupported("a convolution with negative padding")
    shape = result_shape(eqn)
    return builder.add(
        "Conv",
        [
            builder.arranged(builder.full(x), tuple(numbers.lhs_spec)),
            builder.arranged(builder.full(weight), tuple(numbers.rhs_spec)),
        ],
        Tensor(shape, "", shape, tuple(numbers.out_spec)),
        strides=tuple(params["window_strides"]),
        pads=pads_of(params["padding"]),
        dilations=tuple(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )


def _pool(op: str) -> Rule:
    def rule(builder: Builder, eqn: JaxprEqn, x: Tensor) -> Tensor:
        params, rank = eqn.params, len(x.shape)
        windows, strides = params["window_dimensions"], params["window_strides"]
        padding, dilations = params["padding"], params["window_dilation"]
        plain = list(zip(windows, strides, padding, strict=True))
        moving = [axis for axis in range(rank) if plain[axis] != (1, 1, (0, 0))]
        still = [axis for axis in x.order if axis not in moving]
        if (
            len(still) < 2
            or any(d != 1 for d in params["base_dilation"])
            or (op == "AveragePool" and any(d != 1 for d in dilations))
        ):
            raise builder.unsupported("a pooling over these axes")
        still, spatial = still[:2], sorted([*moving, *still[2:]])
        shape = result_shape(eqn)
        attributes = {
            "kernel_shape": tuple(windows[a] for a in spatial),
            "strides": tuple(strides[a] for a in spatial),
            "pads": pads_of([padding[a] for a in spatial]),
        }
        if op == "MaxPool":
            attributes["dilations"] = tuple(dilations[a] for a in spatial)
        found = builder.add(
            op,
            [builder.arranged(builder.full(x), (*still, *spatial))],
            Tensor(shape, "", shape, (*still, *spatial)),
            **attributes,
        )
        if op == "MaxPool":
            return found
        return elementwise(builder, "Mul", found, _scalar(math.prod(windows)))

    return rule


def _product(builder: Builder, eqn: JaxprEqn, x: Tensor, y: Tensor) -> Tensor:
    """Contract axes: (batch..., free..., K) times (batch..., K, free...)."""
    (sum_x, sum_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    x, y = builder.full(x), builder.full(y)
    free_x = [a for a in range(len(x.shape)) if a not in (*sum_x, *batch_x)]
    free_y = [a for a in range(len(y.shape)) if a not in (*sum_y, *batch_y)]
    x = permuted(x, (*batch_x, *free_x, *sum_x))
    y = permuted(y, (*batch_y, *sum_y, *free_y))
    batch, k = x.shape[: len(batch_x)], math.prod(x.shape[len(batch_x) + len(free_x) :])
    rows = x.shape[len(batch_x) : len(batch_x) + len(free_x)]
    columns = y.shape[len(batch_y) + len(sum_y) :]
    x_rows = (math.prod(rows),) if batch or not rows else rows
    x = builder.in_order(builder.reshaped(x, (*batch, *x_rows, k)))
    y = builder.in_order(builder.reshaped(y, (*batch, k, math.prod(columns))))
    shape = (*batch, *x_rows, math.prod(columns))
    like = Tensor(shape, "", shape, tuple(range(len(shape))))
    is_dense = len(shape) == 2 and isinstance(y.data, np.ndarray)
    found = builder.add("Gemm" if is_dense else "MatMul", [x, y], like)
    return builder.reshaped(found, result_shape(eqn))


RULES: dict[str, Rule] = {
    **{name: _named(op) for name, op in _SAME.items()},
    **{name: _formula(build) for name, build in _FORMULAS.items()},
    "max": _max,
    "select_n": _select,
    "clamp": _clamp,
    "integer_pow": _power,
    "convert_element_type": _cast,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "conv_general_dilated": _convolve,
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool"),
    "dot_general": _product,
    **INDEXING,
}
