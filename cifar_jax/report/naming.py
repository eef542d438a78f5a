"""What the arms, the dataset and the runs of a study are called in text."""

from collections.abc import Sequence
from typing import Any

from cifar_jax.study.collect import Run, Study
from cifar_jax.study.summary import compared_arms

ARM_NAMES = {
    "none": "baseline",
    "batch": "BatchNorm",
    "layer": "LayerNorm",
    "instance": "InstanceNorm",
    "group": "GroupNorm",
}
DATASET_NAMES = {"cifar10": "CIFAR-10", "synthetic": "synthetic images (not CIFAR-10)"}


def arm_name(arm: str) -> str:
    """What an arm is called in text."""
    return ARM_NAMES.get(arm, arm)


def dataset_name(study: Study) -> str:
    """What the study's dataset is called in text."""
    name = study.dataset.name
    whole, *parts = name.split("-")
    if whole not in DATASET_NAMES:
        return str(name)
    said = [
        "without duplicates" if part == "unique" else f"{part.replace('of', ' of ')} classes"
        for part in parts
    ]
    return ", ".join([DATASET_NAMES[whole], *said])


def data_notes(study: Study) -> list[str]:
    """Lines on what was skipped, changed or found in the images."""
    return list(study.dataset.notes)


def paired_runs(study: Study) -> list[tuple[Run, Run]]:
    """Runs of the two compared arms that share a seed, by seed; empty if there are none."""
    both = compared_arms(study)
    return study.pairs(*both) if both else []


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def study_config(study: Study) -> dict[str, Any]:
    """The configuration of the study's first run: tables data, model and training."""
    return next(runs[0].results.config for runs in study.runs.values() if runs)
