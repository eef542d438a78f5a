"""Say what a reader must know about a study's runs before its averages."""

import hashlib
from collections.abc import Sequence

import numpy as np

from cifar_jax.errors import counted
from cifar_jax.study.collect import Run, Study

# More seeds than these are not named in one sentence.
_MOST_NAMED = 8
# More groups of equal runs have one sentence together.
_MOST_GROUPS = 20


def cautions(study: Study) -> list[str]:
    """Return sentences about what the averages of a study hide.

    They are those of `run_cautions`, and about two arms with the same predictions, and arms with
    two seeds. For one seed, `reason_no_intervals` of the summary has the sentence.
    """
    found = [*run_cautions(study), *_same_arms(study)]
    two = [study.label(arm) for arm in study.arms if len(study.runs[arm]) == 2]
    if two:
        found.append(
            f"Only two seeds of {' and of '.join(two)} have finished. Two values estimate a spread "
            "badly, so the interval is 12.7 standard errors on each side. Five seeds make it 2.8."
        )
    return found


def run_cautions(study: Study, where: str = "") -> list[str]:
    """Return sentences about runs that always answer one class, or are equal with two seeds.

    Args:
        where: follows the name of an arm, such as " at learning rate 0.1".
    """
    found = []
    for arm in study.arms:
        runs, name = study.runs[arm], study.label(arm) + where
        if runs:
            found += [*_one_class(runs, name), *_same_predictions(runs, name)]
    return found


def _answers_one_class(run: Run) -> bool:
    return len(run.tested.dataset.classes) > 1 and bool(np.ptp(run.predicted) == 0)


def _one_class(runs: Sequence[Run], name: str) -> list[str]:
    classes = runs[0].tested.dataset.classes
    answers = {run.seed: classes[run.predicted[0]] for run in runs if _answers_one_class(run)}
    if not answers:
        return []
    said = "; ".join(
        f"{answer} with {_seeds([s for s, found in answers.items() if found == answer])}"
        for answer in dict.fromkeys(answers.values())
    )
    return [
        f"{name} gives one answer for every test image ({said}). Its accuracy is the share of that "
        "class among the test images, and says nothing about what it learned."
    ]


def _same_predictions(runs: Sequence[Run], name: str) -> list[str]:
    """Return a sentence for each group of seeds with the same predictions.

    Runs that answer one class have a sentence of their own.
    """
    groups: dict[bytes, list[Run]] = {}
    for run in runs:
        if not _answers_one_class(run):
            groups.setdefault(hashlib.sha256(run.predicted.tobytes()).digest(), []).append(run)
    found = [group for group in groups.values() if len(group) > 1]
    if len(found) > _MOST_GROUPS:
        return [
            f"{name} gives the same predictions with several seeds, in {len(found):,} groups of "
            f"seeds; {counted(sum(map(len, found)), 'seed')} in all."
        ]
    return [_same_group(group, name) for group in found]


def _same_group(group: Sequence[Run], name: str) -> str:
    images = counted(len(group[0].predicted), "test image")
    text = (
        f"{name} gives the same predictions for all {images} with "
        f"{_seeds([run.seed for run in group])}."
    )
    if all(np.array_equal(run.logits, group[0].logits) for run in group):
        return (
            f"{text} Their logits are equal too, so the seed does not change the run. "
            "Count them as one run."
        )
    return f"{text} Their logits differ, so more test images would show a spread."


def _same_arms(study: Study) -> list[str]:
    """Return a sentence for each arm whose logits are those of the first, with every seed."""
    first, *others = [arm for arm in study.arms if study.runs[arm]]
    found = []
    for arm in others:
        pairs = study.pairs(first, arm)
        if pairs and all(np.array_equal(a.logits, b.logits) for a, b in pairs):
            found.append(
                f"{study.label(arm)} and {study.label(first)} give equal logits with every seed, "
                "so what differs between these arms has no effect on the runs."
            )
    return found


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > _MOST_NAMED:
        return counted(len(seeds), "seed")
    *others, last = map(str, seeds)
    return f"seeds {', '.join(others)} and {last}" if others else f"seed {last}"
