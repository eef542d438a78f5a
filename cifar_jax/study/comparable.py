"""Find runs of one seed that differ in device, JAX version or environment variables.

A pair of runs has a common seed. A different device or version adds to their difference.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cifar_jax.errors import counted
from cifar_jax.runner.results import Results
from cifar_jax.study.collect import Study, read_intact
from cifar_jax.study.statistics import MANY_SEEDS


def _computed_on(results: Results) -> str:
    """Return the recorded device, versions and variables of a run in words, or ""."""
    return ", then ".join(results.computed_on)


def computed_differently(studies: Sequence[Study]) -> list[str]:
    """Return a sentence for the reader if runs of one seed were computed in different ways."""
    by_seed: dict[int, dict[str, None]] = {}
    for study in studies:
        for run in (run for runs in study.runs.values() for run in runs):
            by_seed.setdefault(run.seed, {})[_computed_on(run.results)] = None
    mixed = {seed: found for seed, found in by_seed.items() if len(found) > 1}
    if not mixed:
        return []
    seeds = "seed" + "s" * (len(mixed) > 1) + " " + ", ".join(map(str, sorted(mixed)))
    if len(mixed) > MANY_SEEDS:
        seeds = counted(len(mixed), "seed")
    different = dict.fromkeys(text for found in mixed.values() for text in found)
    return [
        f"The runs of {seeds} were computed in different ways: {' | '.join(different)}. "
        "That may be part of their differences."
    ]


def others_computed_on(finished: Iterable[Path], present: str) -> list[str]:
    """Return what finished runs were computed on, in words, if not on `present`. No repeats.

    Args:
        finished: directories of runs.
        present: this process's device and versions, from `provenance.describe_computing`.
    """
    found: dict[str, None] = {}
    for directory in finished:
        results = read_intact(directory)
        if results is not None and (other := _computed_on(results)) != present:
            found[other] = None
    return list(found)
