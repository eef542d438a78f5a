"""Numbers as text of a report; a dash where there is none."""

from collections.abc import Sequence
from typing import Any

NONE = "–"  # noqa: RUF001 - an en dash where there is no value


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as per cent."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def interval(
    ends: Sequence[float] | None, scale: float = 1.0, digits: int = 2, unit: str = ""
) -> str:
    """`low to high unit`, or a dash."""
    if ends is None:
        return NONE
    low, high = (f"{scale * end:.{digits}f}" for end in ends)
    return f"{low} to {high} {unit}".rstrip()


def mean_and_spread(
    row: dict[str, Any], scale: float = 1.0, digits: int = 2, unit: str = ""
) -> str:
    """`mean ± standard deviation unit`."""
    if row["mean"] is None:
        return NONE
    text = f"{scale * row['mean']:.{digits}f}"
    if row["std"] is not None:
        text += f" ± {scale * row['std']:.{digits}f}"
    return f"{text} {unit}".rstrip()


def change(value: float | None, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    """A signed difference."""
    return NONE if value is None else f"{scale * value:+.{digits}f} {unit}".rstrip()


def probability(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def seeds_text(count: int) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{count} seed{'s' * (count != 1)}"
