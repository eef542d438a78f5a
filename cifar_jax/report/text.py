"""Format a report's numbers and text. A missing number is a dash."""

import re
from collections.abc import Sequence
from typing import Any

from cifar_jax.errors import printable

NONE = "–"  # noqa: RUF001 - an en dash


def percent(value: float | None, digits: int = 2) -> str:
    """Format a fraction as per cent."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def interval(
    ends: Sequence[float] | None, scale: float = 1.0, digits: int = 2, unit: str = ""
) -> str:
    """Format an interval as `low to high unit`."""
    if ends is None:
        return NONE
    low, high = (f"{scale * end:.{digits}f}" for end in ends)
    return f"{low} to {high} {unit}".rstrip()


def mean_and_spread(
    row: dict[str, Any], scale: float = 1.0, digits: int = 2, unit: str = ""
) -> str:
    """Format a row as `mean ± standard deviation unit`."""
    if row["mean"] is None:
        return NONE
    text = f"{scale * row['mean']:.{digits}f}"
    if row["std"] is not None:
        text += f" ± {scale * row['std']:.{digits}f}"
    return f"{text} {unit}".rstrip()


def change(value: float | None, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    """Format a difference with its sign."""
    return NONE if value is None else f"{scale * value:+z.{digits}f} {unit}".rstrip()


def probability(p: float | None) -> str:
    """Format a p-value: three digits after the point, four below 0.001, or `< 0.0001`."""
    if p is None:
        return NONE
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.4f}"


def difference(row: dict[str, Any]) -> str:
    """Format a difference of accuracies with its interval."""
    text = change(row["mean_difference"], 100, unit="points")
    if row["ci_t"] is None:
        return text
    low, high = (f"{100 * end:+z.2f}" for end in row["ci_t"])
    return f"{text} (95 % interval {low} to {high})"


def undecided(row: dict[str, Any]) -> str:
    """Return why a difference is undecided, or "" if its interval excludes 0."""
    if row["ci_t"] is None:
        return str(row["no_interval"])
    low, high = row["ci_t"]
    return "the interval includes zero" if low <= 0 <= high else ""


def markdown(text: str) -> str:
    """Escape text for Markdown and its table cells."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", printable(" ".join(text.split())))
