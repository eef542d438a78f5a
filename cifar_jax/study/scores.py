"""Compare scores of runs from anywhere: one number per run, by arm and seed.

Runs of two arms with the same seed are pairs. Differences over pairs have a study's statistics.
Arms whose seeds do not match are compared without pairs, by Welch's interval (B. L. Welch, "The
generalization of 'Student's' problem when several different population variances are involved",
Biometrika 34 (1947), 28-35).

Two arms are paired if they share at least half of the seeds of each. This rule does not look at
the scores. If a seed sets nothing in common, pairs are still valid, but gain nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from cifar_jax.errors import UserError, counted, shown
from cifar_jax.study.samples import Sample, compare, describe, difference, with_holm
from cifar_jax.study.statistics import LEVEL, NO_SPREAD, Error

_MOST_LISTED = 8


@dataclass(frozen=True, eq=False)
class Scores:
    """One number for each run.

    Attributes:
        metric: name of the number.
        values: the number of each seed of each arm, `{arm: {seed: value}}`. Seeds are text. The
            order of the arms is that of the tables.
        unit: "%" if the values are fractions, which tables show in per cent; else "".
        source: where they are from, such as a file's name.
        notes: lines on the columns that were taken, and on rows that were not.
        seeded: whether the seeds are known. If not, nothing is paired.
    """

    metric: str
    values: Mapping[str, Mapping[str, float]]
    unit: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    seeded: bool = True

    def sample(self, arm: str, seeds: Sequence[str] | None = None) -> Sample:
        """Return the values of an arm, of all its seeds or of some."""
        found = self.values[arm]
        values = [found[seed] for seed in (found if seeds is None else seeds)]
        return Sample(values, None, 0.0, 1.0) if self.unit == "%" else Sample(values)


class Row(NamedTuple):
    """One arm in a table. The control has no difference.

    Attributes:
        n: number of its runs.
        std: sample standard deviation; None with one run.
        difference: mean of the arm minus that of the control, over pairs if they are paired.
        interval: 95 % interval of the difference, or None.
    """

    arm: str
    n: int
    mean: float | None
    std: float | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    paired: bool = True


def unpaired(first: Sample, second: Sample) -> dict[str, Any]:
    """Return the statistics of second minus first without pairs, with the keys of `compare`.

    Statistics of pairs are None. `ci_t` is Welch's interval, `p_t` the p-value of Welch's test.
    """
    samples = [np.asarray(sample.values, np.float64) for sample in (first, second)]
    errors = [Error.of(x) if len(x) > 1 else None for x in samples]
    gain = float(samples[1].mean() - samples[0].mean())
    ends = p = reason = None
    known = [error for error in errors if error]
    variance = sum(error.variance for error in known)
    if len(known) < 2:
        reason = "an arm with one run gives no interval"
    elif not variance:
        reason = NO_SPREAD
    else:
        freedom = variance**2 / sum(e.variance**2 / e.freedom for e in known)
        half = float(special.stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(variance))
        least, most = second.least - first.most, second.most - first.least
        ends = [max(gain - half, least), min(gain + half, most)]
        p = float(2 * stats.t.sf(abs(gain) / np.sqrt(variance), freedom))
    pairs_only = ("ci_bootstrap", "variance_of_mean", "p_sign_flip", "cohens_dz")
    return {
        **dict.fromkeys((*pairs_only, "std", "seeds_for_power_80")),
        "n": min(map(len, samples)),
        "mean_difference": gain,
        "ci_t": ends,
        "interval_rule": "Welch" if ends else None,
        "no_interval": reason,
        "p_t": p,
        "differences": [],
    }


def _listed(seeds: Sequence[str]) -> str:
    more = f" and {len(seeds) - _MOST_LISTED:,} more" * (len(seeds) > _MOST_LISTED)
    return ", ".join(seeds[:_MOST_LISTED]) + more


def _named(seeds: Sequence[str]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {_listed(seeds)}"


def _lacking(arm: str, seeds: Sequence[str]) -> str:
    return f"{arm} has no {_named(seeds)}" if seeds else ""


def _against(scores: Scores, control: str, arm: str) -> dict[str, Any]:
    """Return the statistics of an arm minus the control."""
    first, second = scores.values[control], scores.values[arm]
    common = [seed for seed in first if seed in second] if scores.seeded else []
    alone = [[s for s in own if s not in common] for own in (first, second)]
    paired = bool(common) and 2 * len(common) >= max(len(first), len(second))
    why = None
    if not scores.seeded:
        why = "the table has no seed column"
    elif not common:
        why = "they share no seed"
    elif not paired:
        parts = (_lacking(arm, alone[0]), _lacking(control, alone[1]))
        why = "they share too few seeds: " + "; ".join(filter(None, parts))
    arms = (control, arm)
    if paired:
        found = compare(difference(*(scores.sample(name, common) for name in arms)))
    else:
        found = unpaired(*map(scores.sample, arms))
    return {
        "arms": list(arms),
        "paired": paired,
        "why_unpaired": why,
        "seeds": common if paired else [],
        "left_out": dict(zip(arms, alone, strict=True)) if paired else {},
        **found,
    }


def ordered(scores: Scores, control: str | None = None) -> list[str]:
    """Return the arms, the control first: by default the first arm.

    Raises:
        UserError: there is no such arm, or no other one.
    """
    arms = list(scores.values)
    if control is not None and control not in arms:
        raise UserError(f"control {shown(control)}: is not an arm; arms: {_listed(arms)}")
    if len(arms) < 2:
        raise UserError(
            f"{scores.source or 'scores'}: has only one arm, {_listed(arms)}; a comparison needs "
            "two"
        )
    first = arms[0] if control is None else control
    return [first, *(arm for arm in arms if arm != first)]


def compare_scores(scores: Scores, control: str | None = None) -> dict[str, Any]:
    """Return every number of a comparison, as data for JSON.

    `per_arm` describes each arm. `against_control` has a row for each other arm: its scores minus
    the control's, with the keys of `compare`. A row also has the p-values that Holm's method
    adjusts for the number of rows, and whether it is `paired`.

    Args:
        scores: of at least two arms.
        control: the arm to compare with; by default the first.

    Raises:
        UserError: there is no such arm, or no other one.
    """
    first, *others = ordered(scores, control)
    return {
        "metric": scores.metric,
        "unit": scores.unit,
        "source": scores.source,
        "notes": list(scores.notes),
        "control": first,
        "arms": [first, *others],
        "per_arm": {
            arm: {"seeds": list(scores.values[arm]), **describe(scores.sample(arm))}
            for arm in (first, *others)
        },
        "against_control": with_holm([_against(scores, first, arm) for arm in others]),
    }


def notices(summary: dict[str, Any]) -> list[str]:
    """Return what a reader of a comparison must know before its numbers."""
    rows, found = summary["against_control"], []
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row["paired"]:
            reasons.setdefault(row["why_unpaired"], []).append(row["arms"][1])
    for why, arms in reasons.items():
        which = _listed(arms) if len(arms) < len(rows) else "Every arm"
        found.append(f"{which} against {summary['control']}: unpaired, because {why}.")
    for row in rows:
        parts = [
            f"{counted(len(seeds), 'run')} of {name} ({_named(seeds)})"
            for name, seeds in row["left_out"].items()
            if seeds
        ]
        if parts:
            found.append(
                f"{' minus '.join(row['arms'][::-1])} leaves out runs without a partner: "
                f"{', '.join(parts)}."
            )
    single = [arm for arm, row in summary["per_arm"].items() if row["n"] == 1]
    if single:
        found.append(
            f"Only one run of {_listed(single)}. One run shows neither the spread between seeds "
            "nor an interval."
        )
    return found


def table_rows(summary: dict[str, Any]) -> list[Row]:
    """Return a row for each arm of a comparison, the control first."""
    gains = {row["arms"][1]: row for row in summary["against_control"]}
    rows = []
    for arm, found in summary["per_arm"].items():
        row = Row(arm, found["n"], found["mean"], found["std"])
        if gain := gains.get(arm):
            ends = gain["ci_t"] and tuple(gain["ci_t"])
            row = row._replace(
                difference=gain["mean_difference"], interval=ends, paired=gain["paired"]
            )
        rows.append(row)
    return rows
