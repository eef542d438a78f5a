"""All numbers of a study with a swept setting, as plain data.

A run that diverged has no test accuracy, but leaving it out would flatter the arm that fails: here
it counts as chance, 1 / classes, which is also what a network has that learns nothing without its
loss overflowing. That holds for test accuracy, and for validation accuracy where a setting is
chosen by it; no other number has a value for such a run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_jax.study.collect import Study, SweepStudy
from cifar_jax.study.grid import Value, setting_name
from cifar_jax.study.summary import (
    chosen_pair,
    compare,
    describe,
    joined,
    joined_versions,
    summarise,
    summarise_arm,
    with_holm,
)

# What `summarise` says about the norms at one value; the claims are about the protocol alone.
_KEPT = ("arms", "missing", "diverged", "epochs", "per_arm", "paired", "mcnemar", "convergence")

Accuracies = dict[int, float]


def accuracies(study: Study, arm: str, chance: float) -> tuple[Accuracies, Accuracies]:
    """Test and final validation accuracy of each seed of an arm, chance where it diverged."""
    test = {run.seed: run.results["test_accuracy"] for run in study.runs[arm]}
    validation = {run.seed: run.curve("val_accuracy")[-1] for run in study.runs[arm]}
    lost = {seed: chance for name, seed in study.diverged if name == arm}
    return {**test, **lost}, {**validation, **lost}


def differences(first: Accuracies, second: Accuracies) -> dict[int, float]:
    """Second minus first of each seed that both have."""
    return {seed: second[seed] - first[seed] for seed in sorted(first) if seed in second}


def _cell(study: Study, arm: str, value: Value, chance: float) -> dict[str, Any]:
    test, _ = accuracies(study, arm, chance)
    runs = study.runs[arm]
    lost = sorted(seed for name, seed in study.diverged if name == arm)
    return {
        "arm": arm,
        "value": value,
        "seeds": sorted(test),
        "diverged": len(lost),
        "diverged_seeds": lost,
        "test_accuracy": describe([test[seed] for seed in sorted(test)], 0.0, 1.0),
        "finished": summarise_arm(runs) if runs else None,
    }


def _gains(
    study: SweepStudy, pair: tuple[str, str], chance: float
) -> tuple[list[dict[str, Any]], list[dict[int, float]]]:
    """The paired gain at each value, as statistics and as numbers of each seed."""
    rows, numbers = [], []
    for value, at in zip(study.sweep.values, study.studies, strict=True):
        first, second = (accuracies(at, arm, chance)[0] for arm in pair)
        gain = differences(first, second)
        lost = {seed for arm, seed in at.diverged if arm in pair}
        rows.append(
            {
                "value": value,
                "seeds": list(gain),
                "diverged_pairs": len(lost & set(gain)),
                **compare(list(gain.values())),
            }
        )
        numbers.append(gain)
    return with_holm(rows), numbers


def _against_first_value(study: SweepStudy, chance: float) -> list[dict[str, Any]]:
    """Every arm at every other value minus the same arm at the first, paired by seed."""
    rows = []
    for arm in study.first.arms:
        first = accuracies(study.first, arm, chance)[0]
        for value, at in zip(study.sweep.values[1:], study.studies[1:], strict=True):
            change = differences(first, accuracies(at, arm, chance)[0])
            row = {"arm": arm, "value": value, "seeds": list(change)}
            rows.append({**row, **compare(list(change.values()))})
    return with_holm(rows)


def _interaction(values: Sequence[Value], gains: Sequence[dict[int, float]]) -> dict[str, Any]:
    """Gain at the last value (of numbers: the highest) minus that at the first, seed by seed."""
    if len(values) < 2:
        return {}
    change = differences(gains[0], gains[-1])
    return {"low": values[0], "high": values[-1], "seeds": list(change)} | compare(
        list(change.values())
    )


def _best(study: SweepStudy, arm: str, chance: float) -> int | None:
    """Index of the value with the best mean validation accuracy, over the seeds that it has."""
    means = [list(accuracies(at, arm, chance)[1].values()) for at in study.studies]
    found = [(float(np.mean(row)), -number) for number, row in enumerate(means) if row]
    return -max(found)[1] if found else None


def _at_best(study: SweepStudy, pair: tuple[str, str], chance: float) -> dict[str, Any]:
    """The gain with each arm at its own best value, chosen on the validation images."""
    best = [_best(study, arm, chance) for arm in pair]
    if best[0] is None or best[1] is None:
        return {}
    first, second = (
        accuracies(study.studies[at], arm, chance)[0]
        for at, arm in zip(best, pair, strict=True)
        if at is not None
    )
    gain = differences(first, second)
    values = [study.sweep.values[at] for at in best if at is not None]
    return {"values": values, "seeds": list(gain), **compare(list(gain.values()))}


def summarise_sweep(study: SweepStudy) -> dict[str, Any]:
    """Every number of a sweep, as data that JSON can hold.

    `cells` has an arm and a value each, `gain` a value each: second minus first compared norm,
    empty with one norm; `against_first_value` has an arm and any value but the first each, that
    value minus the first. `per_value` is what `summarise` says about the norms at that value, or
    None where no run is finished; diverged runs are in none of its numbers.
    """
    first = study.first
    chance = 1 / len(study.dataset["classes"])
    runs = [run for at in study.studies for row in at.runs.values() for run in row]
    pair = chosen_pair(first.arms)
    gains, numbers = _gains(study, pair, chance) if pair else ([], [])
    whole = [summarise(at) if any(at.runs.values()) else None for at in study.studies]
    values = study.sweep.values

    def named(keys: str) -> list[list[Any]]:
        return [
            [arm, value, seed]
            for value, at in zip(values, study.studies, strict=True)
            for arm, seed in getattr(at, keys)
        ]

    return {
        "dataset": study.dataset,
        "arms": list(first.arms),
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
        "compared": list(pair) if pair else [],
        "cells": [
            _cell(at, arm, value, chance)
            for value, at in zip(values, study.studies, strict=True)
            for arm in at.arms
        ],
        "gain": gains,
        "against_first_value": _against_first_value(study, chance),
        "interaction": _interaction(values, numbers) if pair else {},
        "at_best": _at_best(study, pair, chance) if pair else {},
        "per_value": [None if row is None else {k: row[k] for k in _KEPT} for row in whole],
    }
