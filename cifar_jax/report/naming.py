"""Names of a study's arms, dataset and runs in text."""

from collections.abc import Sequence
from typing import Any

from cifar_jax.data.sources.published import PUBLISHED
from cifar_jax.errors import counted
from cifar_jax.names import RUNS
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.statistics import MANY_SEEDS
from cifar_jax.study.summary import compared_arms

DATASET_NAMES = {
    "synthetic": "synthetic images (not CIFAR-10)",
    **{name: spec.title for name, spec in PUBLISHED.items()},
}


def dataset_name(study: Study) -> str:
    """Return the name of the study's dataset in text."""
    name = study.dataset.name
    whole, *parts = name.split("-")
    if whole not in DATASET_NAMES:
        return str(name)
    words = [
        "without duplicates" if part == "unique" else f"{part.replace('of', ' of ')} classes"
        for part in parts
    ]
    return ", ".join([DATASET_NAMES[whole], *words])


def study_title(study: Study) -> str:
    """Return the question of a study."""
    return study.title or "What does normalisation change?"


def data_notes(study: Study) -> list[str]:
    """Return lines on skipped or changed images. Older results have none."""
    return list(study.dataset.notes)


def paired_runs(study: Study) -> list[tuple[Run, Run]]:
    """Return the pairs of runs of the two compared arms with a common seed, by seed."""
    both = compared_arms(study)
    return study.pairs(*both) if both else []


def shared_draws(study: Study) -> str:
    """Return which random draws the two compared runs of a seed share, in a sentence."""
    if any(study.unshared.get(arm) for arm in compared_arms(study) or ()):
        return (
            "Both runs of a seed share split and data order. The protocol lists other random "
            "draws that they do not share."
        )
    return "Both runs of a seed share split, initial values, data order and augmentation."


def listed_seeds(seeds: Sequence[int]) -> str:
    """Return seeds in a list, or the number and range of more than `MANY_SEEDS`."""
    if len(seeds) <= MANY_SEEDS:
        return ", ".join(map(str, seeds))
    return f"{counted(len(seeds), 'seed')} from {min(seeds)} to {max(seeds)}"


def listed_runs(words: Sequence[str]) -> str:
    """Return runs in a list, or the number of more than `MANY_SEEDS`."""
    if len(words) <= MANY_SEEDS:
        return ", ".join(words)
    return f"{counted(len(words), 'run')}; {RUNS} lists them"


def study_config(study: Study) -> dict[str, Any]:
    """Return the config of the study's first run: tables data, model and training."""
    return next(runs[0].results.config for runs in study.runs.values() if runs)
