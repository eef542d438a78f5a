"""Find a 3x3 convolution, elementwise layers and a 2x2 max pooling that follow each other.

As one function they need no transposition of the convolution's result and no gradient of the
elements that the pooling drops.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

CHAIN = "convolution, elementwise layers, max pooling"
"""Name of the rule that evaluates a chain."""

_ELEMENTWISE = {
    *("abs", "add", "convert_element_type", "cos", "div", "eq", "erf", "exp", "expm1", "ge", "gt"),
    *("integer_pow", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "neg", "pow"),
    *("rsqrt", "select_n", "sign", "sin", "sqrt", "square", "sub", "tanh"),
}
_CALLS = ("jit", "pjit")


class Chain(NamedTuple):
    """Operations to evaluate as one.

    Attributes:
        conv: 3x3 convolution, stride 1, same padding, NHWC, even height and width.
        layers: elementwise operations from its result to the pooling's input, in order.
        pool: maximum over 2x2 windows, stride 2.
        others: what the layers read besides, one value per channel or one alone.
    """

    conv: JaxprEqn
    layers: list[JaxprEqn]
    pool: JaxprEqn
    others: list[Var]


def _aval(atom: Any) -> Any:
    """The shape and dtype of a variable or literal."""
    return atom.aval


def _is_pool(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name != "reduce_window_max":
        return False
    shape, params = _aval(eqn.invars[0]).shape, eqn.params
    return (
        len(shape) == 4
        and shape[1] % 2 == shape[2] % 2 == 0
        and params["window_dimensions"] == params["window_strides"] == (1, 2, 2, 1)
        and not any(sum(params["padding"], ()))
        and {*params["base_dilation"], *params["window_dilation"]} == {1}
    )


def _is_conv(eqn: JaxprEqn, output: Any) -> bool:
    if eqn.primitive.name != "conv_general_dilated" or _aval(eqn.outvars[0]) != output:
        return False
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    x, kernel = map(_aval, eqn.invars)
    return (
        kernel.shape[:2] == (3, 3)
        and tuple(params["padding"]) == ((1, 1), (1, 1))
        and {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]} == {1}
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
        and numbers.rhs_spec == (3, 2, 0, 1)
        and x.dtype == kernel.dtype == output.dtype
        and jnp.issubdtype(x.dtype, jnp.floating)
        and 0 not in (*x.shape, *kernel.shape)
    )


def _is_channels(aval: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array has one value a channel of an image, or one alone."""
    return aval.shape == () or aval.shape in (shape[-1:], (1, 1, 1, shape[-1]))


def is_relu(eqn: JaxprEqn) -> bool:
    """Whether an operation is `nn.relu`, whose derivative at 0 is not that of a maximum."""
    if eqn.primitive.name != "custom_jvp_call":
        return False
    return [e.params.get("name") for e in eqn.params["call_jaxpr"].jaxpr.eqns] == ["relu"]


def _is_elementwise(eqn: JaxprEqn, shape: tuple[int, ...]) -> bool:
    name = eqn.primitive.name
    if len(eqn.outvars) != 1 or _aval(eqn.outvars[0]).shape != shape:
        return False
    if name == "broadcast_in_dim":
        last = eqn.params["broadcast_dimensions"][-1:] in ((), (3,))
        return last and _is_channels(_aval(eqn.invars[0]), shape)
    if name in _CALLS:
        closed = eqn.params["jaxpr"]
        return not closed.consts and all(_is_elementwise(e, shape) for e in closed.jaxpr.eqns)
    return name in _ELEMENTWISE or is_relu(eqn)


def _chain(eqns: Sequence[JaxprEqn], users: dict[Var, set[int]], last: int) -> Chain | None:
    """Return the chain that ends with the pooling `eqns[last]`."""
    image = _aval(eqns[last].invars[0])
    conv, members = None, {last}
    for i in reversed(range(last)):
        eqn = eqns[i]
        if not all(users.get(var, {-1}) <= members for var in eqn.outvars):
            continue
        if conv is None and _is_conv(eqn, image):
            conv = eqn
        elif _is_elementwise(eqn, image.shape):
            members.add(i)
    if conv is None:
        return None
    layers = [eqns[i] for i in sorted(members - {last})]
    made = {var for eqn in (conv, *layers) for var in eqn.outvars}
    read = [atom for eqn in (*layers, eqns[last]) for atom in eqn.invars]
    others = dict.fromkeys(a for a in read if not isinstance(a, Literal) and a not in made)
    if not all(_is_channels(_aval(var), image.shape) for var in others):
        return None
    return Chain(conv, layers, eqns[last], list(others))


def find_chains(jaxpr: Jaxpr) -> list[Chain]:
    """Return the chains of a program; they have no operation in common."""
    users: dict[Var, set[int]] = {}
    for i, atoms in enumerate([*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars]):
        for atom in atoms:
            if not isinstance(atom, Literal):
                users.setdefault(atom, set()).add(i)
    pools = (i for i, eqn in enumerate(jaxpr.eqns) if _is_pool(eqn))
    return [chain for i in pools if (chain := _chain(jaxpr.eqns, users, i))]


def apply(
    layers: Sequence[JaxprEqn], variables: Sequence[Var], values: Sequence[Any], result: Any
) -> Any:
    """Evaluate elementwise operations on arrays of another shape than they were traced with.

    Args:
        variables: inputs of the operations.
        values: of the inputs, () or of one shape.
        result: variable to return.
    """
    known = dict(zip(variables, values, strict=True))
    shape = jnp.broadcast_shapes(*(jnp.shape(value) for value in values))
    for eqn in layers:
        read = [a.val if isinstance(a, Literal) else known[a] for a in eqn.invars]
        name = eqn.primitive.name
        if name == "broadcast_in_dim":
            y = jnp.broadcast_to(read[0], shape)
        elif name in _CALLS:
            inner = eqn.params["jaxpr"].jaxpr
            y = apply(inner.eqns, inner.invars, read, inner.outvars[0])
        elif name == "custom_jvp_call":
            y = jax.nn.relu(read[0])
        else:
            y = eqn.primitive.bind(*read, **eqn.params)
        known[eqn.outvars[0]] = y
    return known[result]
