"""What the rules of JAX's operations share."""

from collections.abc import Callable
from typing import Any

from jax.extend.core import JaxprEqn

from cifar_jax.export.builder import Sizes, Tensor

Rule = Callable[..., Tensor]
"""`rule(builder, equation, *operands)` adds nodes, and returns the result."""


def result_shape(eqn: JaxprEqn) -> Sizes:
    """Return the shape of an operation's result."""
    aval: Any = eqn.outvars[0].aval
    return tuple(aval.shape)


def operand_dtype(eqn: JaxprEqn, index: int = 0) -> Any:
    """Return the dtype of an operand."""
    aval: Any = eqn.invars[index].aval
    return aval.dtype


def pads_of(padding: Any) -> Sizes:
    """Return pairs of paddings in ONNX's order: all before the axes, then all after them."""
    return tuple(int(p[end]) for end in (0, 1) for p in padding)


def permuted(x: Tensor, axes: Sizes) -> Tensor:
    """Return a tensor that the program sees transposed: its axis i is axis `axes[i]` of x.

    The data do not move.
    """
    shape = tuple(x.shape[a] for a in axes)
    sizes = tuple(x.sizes[a] for a in axes)
    return Tensor(shape, x.data, sizes, tuple(axes.index(a) for a in x.order))
