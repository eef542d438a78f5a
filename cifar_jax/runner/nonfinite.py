"""Find the operation of a training step with the first non-finite value.

`jax_debug_nans` checks every call of a run. It names a line, but not the layer, nor the overflow
before a NaN. Here training runs normally. Only an epoch that diverged is replayed, step by step,
and only in the bad step every operation is checked.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, Literal

from cifar_jax.core import train as core
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState
from cifar_jax.kernels import jit
from cifar_jax.runner.streamed import HostData

# Primitives that only call another program, and the name of that parameter.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
# Primitives that only move values.
_MOVES = {
    "broadcast_in_dim",
    "copy",
    "expand_dims",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "transpose",
}


@dataclass(frozen=True)
class Operation:
    """The first operation with a non-finite result of finite inputs.

    Attributes:
        value: "NaN" or "infinity".
        primitive: of JAX, for example "dot_general".
        layer: the layer or the result, for example "the backward pass of conv2".
        source: file, line and function.
    """

    value: str
    primitive: str
    layer: str
    source: str

    def __str__(self) -> str:
        return f"the first {self.value} is from {self.primitive} in {self.layer}, {self.source}"


class _Equation(NamedTuple):
    """A traced equation. `inputs` are numbers of other equations."""

    primitive: str
    names: str
    source: str
    inputs: frozenset[int]


class _Traced(NamedTuple):
    """A value, and the number of the equation that made it, or None."""

    value: Any
    origin: int | None


def _largest(values: Sequence[Any]) -> jax.Array:
    """Return the largest magnitude in some arrays, float32 (). NaN if any value is NaN."""
    floats = [v for v in values if jnp.issubdtype(v.dtype, jnp.floating)]
    largest = [jnp.abs(v).max(initial=0).astype(jnp.float32) for v in floats]
    return jnp.max(jnp.stack(largest)) if largest else jnp.float32(0)


def _evaluate(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[_Traced],
    names: str,
    equations: list[_Equation],
    found: list[jax.Array],
) -> list[_Traced]:
    """Evaluate a jaxpr with calls inlined. Append each equation and its magnitude."""
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {v: _Traced(c, None) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def read(atom: Any) -> _Traced:
        return _Traced(atom.val, None) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        here = "/".join(filter(None, (names, str(eqn.source_info.name_stack))))
        inner = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
        if inner is not None:
            # A closed jaxpr has its constants; an open one has none.
            open_, inner_consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            outputs = _evaluate(open_, inner_consts, inputs, here, equations, found)
        else:
            result = eqn.primitive.bind(*(i.value for i in inputs), **eqn.params)
            values = list(result) if eqn.primitive.multiple_results else [result]
            origin = inputs[0].origin if inputs else None
            if eqn.primitive.name not in _MOVES:
                origins = frozenset(i.origin for i in inputs if i.origin is not None)
                source = source_info_util.summarize(eqn.source_info)
                origin = len(equations)
                equations.append(_Equation(eqn.primitive.name, here, source, origins))
                found.append(_largest(values))
            outputs = [_Traced(value, origin) for value in values]
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _sources(start: int, equations: Sequence[_Equation], finite: np.ndarray) -> set[int]:
    """Return the equations with finite inputs that made equation `start` non-finite."""
    sources, seen, pending = set(), {start}, [start]
    while pending:
        number = pending.pop()
        bad = {i for i in equations[number].inputs if not finite[i]}
        if not bad:
            sources.add(number)
        pending += bad - seen
        seen |= bad
    return sources


def _layer(names: str, output: str) -> str:
    """Describe an equation's layer, from its name stack, such as `transpose(jvp(CNN))/conv1`."""
    plain = re.sub(r"\w+\(|\)", "", names).split("/")
    # Drop the model itself, and names from flax and einsum: `CNN._normalise`, `ab,bc->ac`.
    layers = [name for name in plain[1:] if name.isidentifier()]
    if not plain[0] or not layers:
        return f"the computation of {output}"
    return f"the {'backward' if 'transpose(' in names else 'forward'} pass of {'/'.join(layers)}"


def first_nonfinite(function: Callable[..., Any], *arguments: Any) -> Operation | None:
    """Find the operation that first makes a result of a pure function non-finite, or None.

    A non-finite value that reaches no result, such as a masked infinity, does not count.

    Args:
        arguments: finite pytrees of arrays.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    equations: list[_Equation] = []
    origins: list[int | None] = []

    @jax.jit
    def check(leaves: list[Any]) -> jax.Array:
        found: list[jax.Array] = []
        inputs = [_Traced(leaf, None) for leaf in leaves]
        results = _evaluate(closed.jaxpr, closed.consts, inputs, "", equations, found)
        origins.extend(result.origin for result in results)
        return jnp.stack(found) if found else jnp.zeros(0)

    largest = np.asarray(check(jax.tree.leaves(arguments)))
    finite = np.isfinite(largest)
    sources: dict[int, str] = {}
    for (path, _), origin in zip(jax.tree_util.tree_leaves_with_path(shapes), origins, strict=True):
        if origin is not None and not finite[origin]:
            output = "/".join(re.findall(r"[A-Za-z_]\w*", jax.tree_util.keystr(path)))
            for number in _sources(origin, equations, finite):
                sources.setdefault(number, output)
    if not sources:
        return None
    first = min(sources)
    equation = equations[first]
    return Operation(
        value="NaN" if np.isnan(largest[first]) else "infinity",
        primitive=equation.primitive,
        layer=_layer(equation.names, sources[first]),
        source=re.sub(r"^.*/(site-packages/|(?=cifar_jax/))", "", equation.source),
    )


def replay(
    experiment: Experiment, hyper: Hyper, state: TrainState, source: HostData, epoch: int
) -> tuple[int, Operation] | None:
    """Train an epoch again, step by step, up to the first non-finite value.

    Args:
        state: at the start of the epoch, or after some of its steps.
        source: the training images.
        epoch: counted from 1.

    Returns:
        The step, counted from 1, and the operation. None if all steps are finite: single steps
        round differently from a compiled epoch, or only validation was non-finite.
    """
    n, size = len(source.rows), experiment.batch_size
    rows = source.rows[np.asarray(core.epoch_order(state.key, epoch - 1, n))]
    step = partial(jit(core.train_step, static_argnums=(0, 2)), experiment, hyper, n)
    healthy = jax.jit(lambda *trees: jnp.isfinite(_largest(jax.tree.leaves(trees))))
    done = int(state.step) % experiment.steps_per_epoch(n)
    for number, start in list(enumerate(range(0, n, size), start=1))[done:]:
        batch = rows[start : start + size]
        images, labels = source.images[batch], source.labels[batch]
        after = step(state, images, labels)
        if not healthy(after.params, after.batch_stats, after.opt_state, after.loss_sum):
            broken = first_nonfinite(
                lambda hyper, *batch: core.train_step(experiment, hyper, n, *batch),
                hyper,
                state,
                images,
                labels,
            )
            return None if broken is None else (number, broken)
        state = after
    return None
