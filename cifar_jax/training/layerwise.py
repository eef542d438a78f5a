"""Layers that learn at a rate of their own, or not at all."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import optax

from cifar_jax.errors import UserError, shown
from cifar_jax.models.paths import matches, parameter_name

Rates = tuple[tuple[str, float], ...]
"""Patterns of parameters (`cifar_jax.models.paths.matches`) and their factor of the learning rate;
0 is frozen, and where several match the last one counts."""

LARGEST = 1e6


def parse_patterns(text: str | None, flag: str) -> tuple[str, ...]:
    """Patterns separated by commas; none for None or "none".

    Raises:
        UserError: if one is empty or named twice.
    """
    if text in (None, "none"):
        return ()
    patterns = tuple(part.strip() for part in str(text).split(","))
    if not all(patterns):
        raise UserError(f"{flag} {text}: a pattern is empty; must be like 'conv*,norm1'")
    if len({part.rpartition("=")[0].strip() or part for part in patterns}) < len(patterns):
        raise UserError(f"{flag} {text}: a pattern is named twice")
    return patterns


def parse_rates(text: str | None, flag: str) -> Rates:
    """Patterns with factors, `dense*=10,conv1=0.1`.

    Raises:
        UserError: if it is of another form, or a factor is not above 0.
    """
    rates = []
    for part in parse_patterns(text, flag):
        pattern, equals, number = part.rpartition("=")
        if not (equals and pattern.strip()):
            raise UserError(f"{flag}: {shown(part)} must be like dense*=10")
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not 0 < factor <= LARGEST:
            raise UserError(
                f"{flag}: {shown(number)} is not a factor; allowed: above 0 and at most "
                f"{LARGEST:g} (--freeze for none)"
            )
        rates.append((pattern.strip(), factor))
    return tuple(rates)


def rate_of(name: str, rates: Rates) -> float:
    """Factor of a parameter's learning rate: of the last pattern that matches, else 1."""
    return next((factor for pattern, factor in reversed(rates) if matches(name, pattern)), 1.0)


def check_patterns(patterns: Iterable[str], names: Sequence[str], flag: str) -> None:
    """Refuse a pattern that no parameter matches.

    Raises:
        UserError: naming it, and what there is.
    """
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            top = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UserError(
                f"{flag}: {shown(pattern)} matches no parameter; there are: {top}, and in them "
                f"for example {max(names, key=lambda name: name.count('.'))}"
            )


def layerwise(base: optax.GradientTransformation, rates: Rates) -> optax.GradientTransformation:
    """The optimiser with a factor on the updates of some parameters.

    Discriminative fine-tuning (Howard & Ruder 2018, arXiv 1801.06146, section 3.2). A frozen
    parameter has no update at all, weight decay included, and no momentum.

    Args:
        base: the optimiser of all parameters whose factor is 1.
        rates: without any, `base` is returned as it is.
    """
    if not rates:
        return base

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: str(rate_of(parameter_name(path), rates)), params
        )

    transformations = {"1.0": base, "0.0": optax.set_to_zero()}
    for _, factor in rates:
        transformations.setdefault(str(factor), optax.chain(base, optax.scale(factor)))
    return optax.multi_transform(transformations, labels)
