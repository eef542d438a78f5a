"""Evaluate a traced function with other bodies for some of its operations."""

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import jax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from cifar_jax.kernels.chains import CHAIN, find_chains

Rule = Callable[..., jax.Array | None]
"""`rule(equation, *operands)` returns the result, or None to leave the operation as it is.

The rule `CHAIN` takes a `Chain` and the operands of its convolution and of `others`.
"""

_KEPT = "custom_"
"""Prefix of calls with derivatives of their own. These are evaluated as they are."""

_FAST = "custom_vmap_call"
"""A call that only the bodies of this package make."""


def _inner(eqn: JaxprEqn) -> list[Jaxpr]:
    """Return the programs that an operation calls, such as a loop's body."""
    values: list[Any] = [v if isinstance(v, tuple | list) else (v,) for v in eqn.params.values()]
    programs: list[Any] = [
        p for p in itertools.chain(*values) if isinstance(p, ClosedJaxpr | Jaxpr)
    ]
    return [getattr(program, "jaxpr", program) for program in programs]


def operations(jaxpr: Jaxpr, names: Container[str], layer: str = "") -> list[tuple[str, str]]:
    """Return primitive and layer of each operation that is in `names` and has no other body."""
    found = []
    for eqn in jaxpr.eqns:
        here = "/".join(filter(None, (layer, str(eqn.source_info.name_stack))))
        if eqn.primitive.name in names:
            found.append((eqn.primitive.name, here))
        if eqn.primitive.name != _FAST:
            for inner in _inner(eqn):
                found += operations(inner, names, here)
    return found


def _rewritten(closed: ClosedJaxpr, rules: Mapping[str, Rule]) -> ClosedJaxpr:
    """Trace a program again, with the rules."""

    def function(*operands: Any) -> list[Any]:
        return evaluate(closed.jaxpr, closed.consts, operands, rules)

    return jax.make_jaxpr(function)(*closed.in_avals)


def _run(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Evaluate one operation as `jax.core.eval_jaxpr` does."""
    params = eqn.primitive.get_bind_params(eqn.params)
    if isinstance(params, tuple):  # jax before 0.10
        functions, params = params
        operands = [*functions, *operands]
    with eqn.ctx.manager:
        result = eqn.primitive.bind(*operands, **params)
    return list(result) if eqn.primitive.multiple_results else [result]


def _checkpoint(eqn: JaxprEqn, operands: Sequence[Any], rules: Mapping[str, Rule]) -> list[Any]:
    """Evaluate what `jax.checkpoint` made. Its jaxpr is not a closed one: it has no constants."""
    function = jax.checkpoint(
        lambda *inputs: evaluate(eqn.params["jaxpr"], (), inputs, rules),
        prevent_cse=eqn.params["prevent_cse"],
        policy=eqn.params["policy"],
    )
    return list(function(*operands))


def _with_rules(eqn: JaxprEqn, rules: Mapping[str, Rule]) -> JaxprEqn:
    """Apply the rules in the programs that an operation calls."""

    def rewritten(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(rewritten, value))
        return _rewritten(value, rules) if isinstance(value, ClosedJaxpr) else value

    return eqn.replace(params={key: rewritten(value) for key, value in eqn.params.items()})


def evaluate(
    jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], rules: Mapping[str, Rule]
) -> list[Any]:
    """Evaluate a jaxpr, and return its outputs. Operations keep the names of their layers.

    Args:
        jaxpr: see `jax.make_jaxpr`.
        consts: its constants.
        arguments: its inputs.
        rules: other bodies for primitives, by name.
    """
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    chains = {id(chain.pool): chain for chain in find_chains(jaxpr)} if CHAIN in rules else {}
    inside = {id(eqn) for chain in chains.values() for eqn in (chain.conv, *chain.layers)}
    outer = source_info_util.current_name_stack()
    for eqn in jaxpr.eqns:
        if id(eqn) in inside:
            continue
        if chain := chains.get(id(eqn)):
            atoms = [*chain.conv.invars, *chain.others]
            known[eqn.outvars[0]] = rules[CHAIN](chain, *map(read, atoms))
            continue
        name, info = eqn.primitive.name, eqn.source_info
        operands = [read(atom) for atom in eqn.invars]
        calls = not name.startswith(_KEPT) and any(operations(j, rules) for j in _inner(eqn))
        outputs = None
        with source_info_util.user_context(info.traceback, name_stack=outer + info.name_stack):
            if name in rules:
                result = rules[name](eqn, *operands)
                outputs = None if result is None else [result]
            elif calls and name == "checkpoint":
                outputs = _checkpoint(eqn, operands, rules)
            if outputs is None:
                outputs = _run(_with_rules(eqn, rules) if calls else eqn, operands)
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def rewrite(function: Callable[..., Any], rules: Mapping[str, Rule]) -> Callable[..., Any]:
    """Return the function of pytrees of arrays with other bodies for some of its operations."""

    def rewritten(*arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        leaves = jax.tree.leaves(arguments)
        results = evaluate(closed.jaxpr, closed.consts, leaves, rules)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return rewritten
