"""Compute all numbers of a study with a swept setting, as plain data.

A run that diverged has no test accuracy. Its arm would look too good without it. So it counts as
chance, 1 / classes: the accuracy of a network that learns nothing. This applies to test accuracy,
and to validation accuracy when it chooses a value. No other number includes a diverged run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from cifar_jax.storage import nan_to_none
from cifar_jax.study.collect import Study, SweepStudy
from cifar_jax.study.samples import Sample, accuracy, compare, describe, difference, with_holm
from cifar_jax.study.statistics import ROUNDING
from cifar_jax.study.summary import (
    chosen_pair,
    joined,
    joined_versions,
    summarise,
    summarise_arm,
    time_spent,
)
from cifar_jax.study.values import Value, setting_name

# Keys of `summarise` to keep for one value. The claims apply only to the protocol.
_KEYS = (
    "arms",
    "labels",
    "missing",
    "diverged",
    "epochs",
    "per_arm",
    "paired",
    "two_stages",
    "mcnemar",
    "convergence",
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of one run.

    Attributes:
        test, validation: accuracies; chance if it diverged.
        right: (N,), whether each test image is right; chance if it diverged.
    """

    test: float
    validation: float
    right: np.ndarray


Outcomes = dict[int, Outcome]


def outcomes(study: Study, arm: str, lost: Outcome) -> Outcomes:
    """Return the outcome of each seed of an arm, by increasing seed; `lost` if it diverged."""
    found = {
        run.seed: Outcome(run.tested.test_accuracy, run.curve("val_accuracy")[-1], run.correct)
        for run in study.runs[arm]
    }
    diverged = {seed: lost for name, seed in study.diverged if name == arm}
    return dict(sorted({**found, **diverged}.items()))


def _test(found: Outcomes, seeds: Sequence[int]) -> Sample:
    """Return the test accuracy of some seeds, at least one."""
    images = np.mean([found[seed].right for seed in seeds], axis=0)
    return accuracy([found[seed].test for seed in seeds], images)


def _gain(first: Outcomes, second: Outcomes) -> tuple[list[int], Sample]:
    """Return the common seeds, and the second's test accuracy minus the first's."""
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return [], Sample([])
    return seeds, difference(_test(first, seeds), _test(second, seeds))


def _cell(study: Study, arm: str, value: Value, lost: Outcome) -> dict[str, Any]:
    """Return the test accuracy of one arm at one value, and its diverged runs."""
    found = outcomes(study, arm, lost)
    runs = study.runs[arm]
    diverged = sorted(seed for name, seed in study.diverged if name == arm)
    return {
        "arm": arm,
        "value": value,
        "seeds": list(found),
        "diverged": len(diverged),
        "diverged_seeds": diverged,
        "test_accuracy": describe(_test(found, list(found)) if found else Sample([])),
        "finished": summarise_arm(runs) if runs else None,
    }


def _gains(study: SweepStudy, pair: tuple[str, str], lost: Outcome) -> list[dict[str, Any]]:
    """Return the paired gain at each value."""
    rows = []
    for value, at in zip(study.sweep.values, study.studies, strict=True):
        seeds, gain = _gain(*(outcomes(at, arm, lost) for arm in pair))
        diverged = {seed for arm, seed in at.diverged if arm in pair}
        pairs = {"value": value, "seeds": seeds, "diverged_pairs": len(diverged & set(seeds))}
        rows.append({**pairs, **compare(gain)})
    return with_holm(rows)


def _against_first_value(study: SweepStudy, lost: Outcome) -> list[dict[str, Any]]:
    """Return each arm at each other value minus the same arm at the first, paired by seed."""
    rows = []
    for arm in study.first.arms:
        first = outcomes(study.studies[0], arm, lost)
        for value, at in zip(study.sweep.values[1:], study.studies[1:], strict=True):
            seeds, change = _gain(first, outcomes(at, arm, lost))
            rows.append({"arm": arm, "value": value, "seeds": seeds, **compare(change)})
    return with_holm(rows)


def _interaction(study: SweepStudy, pair: tuple[str, str], lost: Outcome) -> dict[str, Any]:
    """Return the gain at the last (highest) value minus that at the first, seed by seed.

    A gain is the second arm of `pair` minus the first. Seeds that lack one of the four runs are
    left out.
    """
    if len(study.sweep.values) < 2:
        return {}
    ends = study.studies[0], study.studies[-1]
    low, high = ([outcomes(at, arm, lost) for arm in pair] for at in ends)
    seeds = sorted(set.intersection(*map(set, (*low, *high))))
    change = Sample([])
    if seeds:
        gains = [difference(*(_test(arm, seeds) for arm in end)) for end in (low, high)]
        change = difference(*gains)
    values = {"low": study.sweep.values[0], "high": study.sweep.values[-1]}
    return {**values, "seeds": seeds, **compare(change)}


def _chosen(
    study: SweepStudy, arm: str, lost: Outcome, against: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """Choose an arm's value by its mean validation accuracy. Return it with its test accuracy.

    Values are compared over their common seeds. Of equal values the first is taken. None if there
    is no common seed.

    Args:
        against: rows of `_against_first_value`.
    """
    found = {
        value: row
        for value, at in zip(study.sweep.values, study.studies, strict=True)
        if (row := outcomes(at, arm, lost))
    }
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    if not seeds:
        return None
    means = {
        value: float(np.mean([row[seed].validation for seed in seeds]))
        for value, row in found.items()
    }
    best, *tied = [v for v, mean in means.items() if mean >= max(means.values()) - ROUNDING]
    rows = [row for row in against if (row["arm"], row["value"]) == (arm, best) and row["n"]]
    return {
        "arm": arm,
        "value": best,
        "among": len(found),
        "tied": tied,
        "seeds": seeds,
        "val_accuracy": means[best],
        "test_accuracy": describe(_test(found[best], seeds)),
        "against_first_value": rows[0] if rows else None,
        "adjusted_for": sum(row["n"] > 1 for row in against),
    }


def _at_best(
    study: SweepStudy, pair: tuple[str, str], chosen: dict[str, dict[str, Any]], lost: Outcome
) -> dict[str, Any]:
    """Return the gain with each arm at its chosen value."""
    if not all(arm in chosen for arm in pair):
        return {}
    values = [chosen[arm]["value"] for arm in pair]
    studies = [study.studies[study.sweep.values.index(value)] for value in values]
    seeds, gain = _gain(*(outcomes(at, arm, lost) for at, arm in zip(studies, pair, strict=True)))
    return {"values": values, "seeds": seeds, **compare(gain)}


def summarise_sweep(study: SweepStudy) -> dict[str, Any]:
    """Return every number of a sweep, as data for JSON.

    `cells` has a row for each arm and value. `gain` has a row for each value: second minus first
    arm, empty with one arm. `against_first_value` has a row for each arm and value but the
    first: that value minus the first. `chosen` has a row for each arm: the value that its
    validation accuracy chooses, among how many, ties, and its test accuracy. `per_value` is
    `summarise` at each value, without diverged runs, or None without a finished run.
    """
    first = study.first
    chance = 1 / len(study.dataset.classes)
    lost = Outcome(chance, chance, np.full(study.dataset.n_test, chance))
    runs = [run for at in study.studies for row in at.runs.values() for run in row]
    pair = chosen_pair(first.arms, first.control)
    against = _against_first_value(study, lost)
    chosen = [_chosen(study, arm, lost, against) for arm in first.arms]
    by_arm = {row["arm"]: row for row in chosen if row}
    whole = [summarise(at) if any(at.runs.values()) else None for at in study.studies]
    values = study.sweep.values

    def named(keys: str) -> list[list[Any]]:
        return [
            [arm, value, seed]
            for value, at in zip(values, study.studies, strict=True)
            for arm, seed in getattr(at, keys)
        ]

    return {
        "dataset": nan_to_none(msgspec.to_builtins(study.dataset)),
        "title": first.title,
        "arms": list(first.arms),
        "labels": {arm: first.label(arm) for arm in first.arms},
        "seeds": list(first.seeds),
        "sweep": {
            "field": study.sweep.field,
            "name": setting_name(study.sweep.field),
            "values": list(values),
        },
        "missing": [row for row in named("missing") if row not in named("diverged")],
        "diverged": named("diverged"),
        "chance": chance,
        "device": joined(runs, "device"),
        "versions": joined_versions(runs),
        "git_revision": joined(runs, "git_revision"),
        "spent": time_spent(runs),
        "compared": list(pair) if pair else [],
        "cells": [
            _cell(at, arm, value, lost)
            for value, at in zip(values, study.studies, strict=True)
            for arm in at.arms
        ],
        "gain": _gains(study, pair, lost) if pair else [],
        "against_first_value": against,
        "chosen": list(by_arm.values()),
        "interaction": _interaction(study, pair, lost) if pair else {},
        "at_best": _at_best(study, pair, by_arm, lost) if pair else {},
        "per_value": [None if row is None else {k: row[k] for k in _KEYS} for row in whole],
    }
