"""Compare the arms of a study by numbers of their runs, paired by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cifar_jax.report.tables import Table
from cifar_jax.report.text import NONE, change, interval, mean_and_spread, probability, undecided
from cifar_jax.study.collect import Study
from cifar_jax.study.samples import Sample, compare, describe, difference, with_holm
from cifar_jax.study.summary import compared_arms

NOTE = (
    "Means ± standard deviations over the seeds. Intervals are Student's t intervals over the "
    "seeds, for these images. A dash means that there is no interval."
)
HOLM_NOTE = "The last p-values are adjusted by Holm's method for the number of rows and arms."


@dataclass(frozen=True)
class Quantity:
    """A number that each run has.

    Attributes:
        key: in `analysis.json`.
        label: in tables and sentences.
        scale: factor from the record's unit to the shown unit.
        digits: after the point.
        unit: shown, such as "%".
        unit_of_difference: shown, such as "points"; "" for `unit`.
        least, most: range of the number.
        family: quantities of one family, such as classes, share Holm's adjustment.
    """

    key: str
    label: str
    scale: float = 1.0
    digits: int = 2
    unit: str = ""
    unit_of_difference: str = ""
    least: float = -math.inf
    most: float = math.inf
    family: str = ""


def share(key: str, label: str, family: str = "", digits: int = 2) -> Quantity:
    """Return a quantity between 0 and 1, shown in per cent."""
    return Quantity(key, label, 100.0, digits, "%", "points", 0.0, 1.0, family)


class Number(NamedTuple):
    """A quantity of one run. None: not defined for this run."""

    quantity: Quantity
    value: float | None


@dataclass(frozen=True)
class Compared:
    """A quantity of all runs.

    Attributes:
        quantity: what it is.
        per_arm: `samples.describe` of each arm's seeds.
        control: arm that the others are compared with; "" without a second arm.
        paired: `samples.compare` of each other arm minus the control, with Holm's adjustment.
    """

    quantity: Quantity
    per_arm: dict[str, dict[str, Any]]
    control: str
    paired: dict[str, dict[str, Any]]


def _sample(quantity: Quantity, values: Sequence[float]) -> Sample:
    return Sample(list(values), None, quantity.least, quantity.most)


def compare_arms(
    study: Study, cells: Sequence[tuple[str, int, Sequence[Number]]]
) -> list[Compared]:
    """Compare the arms by every number.

    Args:
        study: with the order of arms and the control.
        cells: arm, seed and numbers of each run.

    Returns:
        An entry for each quantity, in the order of the numbers.
    """
    values: dict[Quantity, dict[str, dict[int, float]]] = {}
    for arm, seed, numbers in cells:
        for quantity, value in numbers:
            arms = values.setdefault(quantity, {name: {} for name in study.arms})
            if value is not None:
                arms[arm][seed] = value
    both = compared_arms(study)
    control = both[0] if both else ""
    found = [
        Compared(
            quantity,
            {arm: describe(_sample(quantity, list(of.values()))) for arm, of in arms.items() if of},
            control,
            _differences(quantity, arms, control),
        )
        for quantity, arms in values.items()
    ]
    return _with_holm(found)


def _differences(
    quantity: Quantity, arms: dict[str, dict[int, float]], control: str
) -> dict[str, dict[str, Any]]:
    """Compare each arm with the control, over their common seeds."""
    found = {}
    for arm, values in arms.items():
        seeds = sorted(values.keys() & arms.get(control, {}).keys()) if arm != control else []
        if seeds:
            pair = [
                _sample(quantity, [of[seed] for seed in seeds]) for of in (arms[control], values)
            ]
            found[arm] = {"seeds": seeds, **compare(difference(*pair))}
    return found


def _with_holm(found: list[Compared]) -> list[Compared]:
    """Adjust the p-values of each family, over its quantities and arms."""
    families: dict[str, list[tuple[Compared, str]]] = {}
    for row in found:
        family = row.quantity.family or row.quantity.key
        families.setdefault(family, []).extend((row, arm) for arm in row.paired)
    for members in families.values():
        adjusted = with_holm([row.paired[arm] for row, arm in members])
        for (row, arm), new in zip(members, adjusted, strict=True):
            row.paired[arm] = new
    return found


def show_mean(row: Compared, arm: str) -> str:
    """Format the mean of an arm with its interval."""
    quantity, found = row.quantity, row.per_arm[arm]
    text = f"{quantity.scale * found['mean']:.{quantity.digits}f} {quantity.unit}".rstrip()
    if found["ci_t"] is None:
        return text
    return f"{text} (95 % interval {interval(found['ci_t'], quantity.scale, quantity.digits)})"


def show_difference(row: Compared, arm: str) -> str:
    """Format the difference of an arm to the control with its interval, or why it has none."""
    quantity, found = row.quantity, row.paired[arm]
    unit = quantity.unit_of_difference or quantity.unit
    text = change(found["mean_difference"], quantity.scale, quantity.digits, unit)
    if found["ci_t"] is None:
        return f"{text} (no interval: {found['no_interval']})"
    low, high = (f"{quantity.scale * end:+z.{quantity.digits}f}" for end in found["ci_t"])
    return f"{text} (95 % interval {low} to {high})"


def means_sentence(study: Study, row: Compared) -> str:
    """Return a sentence with the mean of every arm."""
    if not row.per_arm:
        return ""
    of = " for {}" if len(study.arms) > 1 else ""
    arms = [show_mean(row, arm) + of.format(study.label(arm)) for arm in row.per_arm]
    label = row.quantity.label[:1].upper() + row.quantity.label[1:]
    return f"{label}: {', '.join(arms)}."


def verdict_sentence(study: Study, row: Compared, low: str, high: str) -> str:
    """Return sentences that say which arm has the larger number, and what that means.

    Args:
        study: with the names of the arms.
        row: the quantity.
        low, high: words for a smaller and a larger number, such as "is less overconfident".
    """
    words, control = [], study.label(row.control)
    for arm, found in row.paired.items():
        label = study.label(arm)
        shown = show_difference(row, arm)
        if why := undecided(found):
            why = "" if found["ci_t"] is None else f": {why}"
            words.append(
                f"Whether {label} differs from {control} is undecided{why}; the difference is "
                f"{shown}."
            )
            continue
        what = high if found["mean_difference"] > 0 else low
        words.append(f"{label} {what} than {control}: {shown}.")
    return " ".join(words)


def compare_sentences(study: Study, row: Compared, low: str, high: str) -> str:
    """Return the mean of every arm, and what the differences say. See `verdict_sentence`."""
    return f"{means_sentence(study, row)} {verdict_sentence(study, row, low, high)}".strip()


def numbers_table(study: Study, rows: Sequence[Compared], title: str, note: str = "") -> Table:
    """Return a table of quantities: every arm's mean and interval, and the differences."""
    arms = [arm for arm in study.arms if any(arm in row.per_arm for row in rows)]
    others = [arm for arm in arms if any(arm in row.paired for row in rows)]
    many = len(others) > 1 or any(row.quantity.family for row in rows if row.paired)
    heads = [word for arm in arms for word in (study.label(arm), "95 % interval")]
    for arm in others:
        name = f"{study.label(arm)} minus {study.label(rows[0].control)}"
        heads += [name, "95 % interval", "p (paired t)", *(["p (Holm)"] if many else [])]
    cells = [
        (
            row.quantity.label,
            *(cell for arm in arms for cell in _mean_cells(row, arm)),
            *(cell for arm in others for cell in _difference_cells(row, arm, many)),
        )
        for row in rows
    ]
    words = [note, NOTE, HOLM_NOTE if many else ""]
    return Table(title, " ".join(word for word in words if word), ("", *heads), cells)


def _mean_cells(row: Compared, arm: str) -> tuple[str, str]:
    quantity, found = row.quantity, row.per_arm.get(arm)
    if found is None:
        return NONE, NONE
    scale, digits = quantity.scale, quantity.digits
    return (
        mean_and_spread(found, scale, digits, quantity.unit),
        interval(found["ci_t"], scale, digits),
    )


def _difference_cells(row: Compared, arm: str, many: bool) -> tuple[str, ...]:
    quantity, found = row.quantity, row.paired.get(arm)
    if found is None:
        return (NONE,) * (4 if many else 3)
    scale, digits = quantity.scale, quantity.digits
    cells = (
        change(
            found["mean_difference"],
            scale,
            digits,
            quantity.unit_of_difference or quantity.unit,
        ),
        interval(found["ci_t"], scale, digits),
        probability(found["p_t"]),
    )
    return (*cells, probability(found["p_t_holm"])) if many else cells
