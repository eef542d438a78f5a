"""Which operation of a training step first gives a value that is not finite.

`jax_debug_nans` names a line, but not the layer, nor the overflow that a NaN comes from, and with
it every call of the run is checked. Here training runs as ever; only an epoch that has diverged is
replayed, step by step, and of the step that spoils the state every operation is checked.
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
from cifar_jax.runner.programs import HostData

# Primitives that only call another program, and where they keep it.
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
    """The first operation with a value that is not finite, from values that all are.

    Attributes:
        value: "NaN" or "infinity".
        primitive: of JAX, for example "dot_general".
        place: the layer, or the result that it ends in, for example "backward pass of conv2".
        source: file, line and function.
    """

    value: str
    primitive: str
    place: str
    source: str

    def __str__(self) -> str:
        return f"the first {self.value} is from {self.primitive} in {self.place}, {self.source}"


class _Equation(NamedTuple):
    """What is known of an equation when it is traced; inputs are numbers of other equations."""

    primitive: str
    names: str
    source: str
    inputs: frozenset[int]


class _Traced(NamedTuple):
    """A value, and the number of the equation that it is from; None for constants."""

    value: Any
    origin: int | None


def _largest(values: Sequence[Any]) -> jax.Array:
    """Largest magnitude in some arrays, float32 (): NaN if there is one, else maybe infinity."""
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
    """Evaluate a jaxpr, calls inlined; adds what is known of each equation, and its magnitude."""
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {v: _Traced(c, None) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def read(atom: Any) -> _Traced:
        return _Traced(atom.val, None) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        here = "/".join(filter(None, (names, str(eqn.source_info.name_stack))))
        inner = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
        if inner is not None:
            # A closed jaxpr holds its constants; an open one has none.
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


def _births(start: int, equations: Sequence[_Equation], finite: np.ndarray) -> set[int]:
    """Equations that made what is not finite in the outcome of equation `start`."""
    births, seen, left = set(), {start}, [start]
    while left:
        number = left.pop()
        bad = {i for i in equations[number].inputs if not finite[i]}
        if not bad:
            births.add(number)
        left += bad - seen
        seen |= bad
    return births


def _place(names: str, output: str) -> str:
    """Where an equation stands, from its name stack, such as `transpose(jvp(CNN))/conv1`."""
    plain = re.sub(r"\w+\(|\)", "", names).split("/")
    # Without the model itself, and what flax and einsum add: `CNN._normalise`, `ab,bc->ac`.
    layers = [name for name in plain[1:] if name.isidentifier()]
    if not plain[0] or not layers:
        return f"what becomes {output}"
    return f"the {'backward' if 'transpose(' in names else 'forward'} pass of {'/'.join(layers)}"


def first_nonfinite(function: Callable[..., Any], *arguments: Any) -> Operation | None:
    """The operation that first spoils the results of a pure function; None if all are finite.

    What is not finite on the way but in no result, such as a masked infinity, does not count.

    Args:
        arguments: pytrees of arrays; finite.
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
    births: dict[int, str] = {}
    for (path, _), origin in zip(jax.tree_util.tree_leaves_with_path(shapes), origins, strict=True):
        if origin is not None and not finite[origin]:
            output = "/".join(re.findall(r"[A-Za-z_]\w*", jax.tree_util.keystr(path)))
            for number in _births(origin, equations, finite):
                births.setdefault(number, output)
    if not births:
        return None
    first = min(births)
    equation = equations[first]
    return Operation(
        value="NaN" if np.isnan(largest[first]) else "infinity",
        primitive=equation.primitive,
        place=_place(equation.names, births[first]),
        source=re.sub(r"^.*/(site-packages/|(?=cifar_jax/))", "", equation.source),
    )


def replay(
    experiment: Experiment, hyper: Hyper, state: TrainState, source: HostData, epoch: int
) -> tuple[int, Operation] | None:
    """Train an epoch again, step by step, up to the first value that is not finite.

    Args:
        state: at the beginning of the epoch, or after some of its steps.
        source: the training images.
        epoch: counted from 1.

    Returns:
        The step, counted from 1, and the operation; None if all steps are finite this time (step
        by step is another program than an epoch, and rounds otherwise), or only validation is not.
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
