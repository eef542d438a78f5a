"""Parse patterns of layers with their own learning rate, and of frozen layers."""

import math
from collections.abc import Iterable, Sequence

from cifar_jax.errors import UserError, shown
from cifar_jax.methods.layer_rates import matches

Rates = tuple[tuple[str, float], ...]
"""Patterns of parameters and their factor of the learning rate: see `LayerRates`."""

LARGEST = 1e6


def parse_patterns(text: str | None, flag: str) -> tuple[str, ...]:
    """Parse patterns separated by commas; () for None or "none".

    Raises:
        UserError: a pattern is empty or named twice.
    """
    if text in (None, "none"):
        return ()
    patterns = tuple(part.strip() for part in str(text).split(","))
    if not all(patterns):
        raise UserError(f"{flag} {text}: a pattern is empty; must be like 'conv*,norm1'")
    # A factor, as in "conv1=0.1", is not part of the name.
    if len({part.rpartition("=")[0].strip() or part for part in patterns}) < len(patterns):
        raise UserError(f"{flag} {text}: a pattern is named twice")
    return patterns


def parse_rates(text: str | None, flag: str) -> Rates:
    """Parse patterns with factors, `dense*=10,conv1=0.1`.

    Raises:
        UserError: the text has another form, or a factor is not above 0.
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


def check_patterns(patterns: Iterable[str], names: Sequence[str], flag: str) -> None:
    """Check that each pattern matches a parameter.

    Raises:
        UserError: a pattern matches no parameter.
    """
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            top = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UserError(
                f"{flag}: {shown(pattern)} matches no parameter; allowed: {top}, and their parts, "
                f"for example {max(names, key=lambda name: name.count('.'))}"
            )
