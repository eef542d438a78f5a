"""Put trained networks into a page, where they answer for images of the reader."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from cifar_jax.analysis.fitted import measured_temperature, read_fitted
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import listed
from cifar_jax.export.trace import trace
from cifar_jax.names import IN_PYTHON
from cifar_jax.report.demo import Demo, encode, pack
from cifar_jax.report.drawing import arm_style
from cifar_jax.report.figures import reason
from cifar_jax.report.text import percent
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.network import Network, forward, restore
from cifar_jax.study.summary import compared_arms

_MOST_WEIGHTS = 1_600_000  # of all networks in a page; 2 bytes each, and a third more in base64
_MOST_TESTS = 10  # images of each kind


def _chosen(study: Study) -> dict[str, list[Run]]:
    """Return the runs whose networks fit into the page, by arm, the compared arms first.

    All seeds of the arms, if they fit. Else one seed, which all arms have if possible.
    """
    finished = [arm for arm in study.arms if study.runs[arm]]
    order = sorted(finished, key=lambda arm: arm not in (compared_arms(study) or ()))
    weights = {arm: study.runs[arm][0].results.num_params for arm in order}
    if sum(weights[arm] * len(study.runs[arm]) for arm in order) <= _MOST_WEIGHTS:
        return {arm: study.runs[arm] for arm in finished}
    seeds = [{run.seed for run in study.runs[arm]} for arm in order]
    common = set.intersection(*seeds)
    found, total = {}, 0
    for arm in order:
        total += weights[arm]
        if total <= _MOST_WEIGHTS:
            runs = [run for run in study.runs[arm] if run.seed in common] or study.runs[arm]
            found[arm] = runs[:1]
    return {arm: found[arm] for arm in finished if arm in found}


def _temperature(study: Study, runs: Sequence[Run], networks: Sequence[Network]) -> float | None:
    """Return the temperature of an arm that `analyse` or `predict` has fitted, or None."""
    where = runs[0].directory
    if len(runs) == 1 and (found := measured_temperature(where, study.dataset.fingerprint)):
        return found
    digests = tuple(network.digest for network in networks)
    fitted = read_fitted(where if len(runs) == 1 else where.parent, digests)
    return fitted.temperature if fitted else None


def _tests(runs: Sequence[Run]) -> np.ndarray:
    """Return positions in the test set: the first image of each class, and some others.

    The others are spread over those on which the networks disagree.
    """
    label = runs[0].label
    first = [int(np.argmax(label == c)) for c in np.unique(label)[:_MOST_TESTS]]
    predicted = np.array([run.predicted for run in runs])
    differ = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    others = np.setdiff1d(differ, first)
    spread = np.linspace(0, len(others), _MOST_TESTS, endpoint=False).astype(int)
    return np.array([*first, *(others[np.unique(spread)] if len(others) else ())], int)


def _arm(
    study: Study, arm: str, runs: Sequence[Run], file: ExperimentFile | None, rows: np.ndarray
) -> dict[str, Any]:
    """Return an arm as JSON, see `report.demo`.

    Raises:
        UserError: a network cannot be restored, or the page cannot run it.
    """
    networks = [restore(run.directory, file) for run in runs]
    packed = [
        {
            **pack(trace(partial(forward, of.plain, of.variables), of.image_shape)),
            "logits": run.logits[rows].astype(float).tolist(),
        }
        for of, run in zip(networks, runs, strict=True)
    ]
    return {
        "label": study.label(arm),
        "what": _what(runs),
        "colour": arm_style(study.arms, arm)[0],
        "temperature": _temperature(study, runs, networks),
        "networks": packed,
    }


def _what(runs: Sequence[Run]) -> str:
    """Describe the networks of an arm."""
    accuracy = percent(math.fsum(run.tested.test_accuracy for run in runs) / len(runs))
    if len(runs) == 1:
        return f"seed {runs[0].seed}, test accuracy {accuracy}"
    return f"{len(runs)} seeds, mean test accuracy {accuracy}"


def _notes(study: Study, chosen: dict[str, list[Run]], calibrated: bool) -> tuple[str, ...]:
    """Return what a reader must know about the answers."""
    found = []
    if any(len(runs) > 1 for runs in chosen.values()):
        found.append("An arm answers with the mean of the probabilities of its seeds.")
    left_out = [study.label(arm) for arm in study.arms if study.runs[arm] and arm not in chosen]
    if left_out:
        found.append(f"Too large for this page: {listed(left_out)}.")
    if calibrated:
        found.append(
            "Confidences are calibrated, by the temperature that the command analyse or predict "
            "fitted on the validation images."
        )
    else:
        found.append(
            "Confidences are as trained, not calibrated. The commands analyse and predict fit the "
            "temperature that calibrates them."
        )
    found += [
        "The networks always name one of their classes, also for an image of none of them.",
        "The centred square of an image is resized (Lanczos), as --resize does for training. EXIF "
        "orientation counts, a colour profile does not. Transparent pixels become white.",
        "A shift fills the edge with black, as the crops in training do. A mark in a bar is the "
        "confidence without the changes.",
    ]
    return tuple(found)


def make_demo(study: Study, images: Dataset | None, file: ExperimentFile | None = None) -> Demo:
    """Return the section of the page in which the networks of a study answer.

    Args:
        study: with its runs; at least one is finished.
        images: of its dataset; without them the section has no test images.
        file: the study's experiment file, if it has one.
    """
    if study.file == IN_PYTHON:
        return Demo(reason="the networks were trained in Python, so they are in no file")
    chosen = _chosen(study)
    if not chosen:
        return Demo(reason="its networks are too large for a page")
    rows = _tests([run for row in chosen.values() for run in row])
    try:
        arms = [_arm(study, arm, row, file, rows) for arm, row in chosen.items()]
    except Exception as error:  # Of a user's module too. It costs nothing else of the page.
        return Demo(reason=reason(error))
    calibrated = all(arm["temperature"] for arm in arms)
    for arm in arms:
        arm["temperature"] = arm["temperature"] if calibrated else None
    tests = None
    if images is not None:
        label = next(iter(chosen.values()))[0].label
        tests = {
            "pixels": encode(np.asarray(images.test_images[rows]).tobytes()),
            "labels": label[rows].tolist(),
            "numbers": rows.tolist(),
        }
    of = study.dataset
    data = {"size": of.image_shape[:2], "classes": of.classes, "arms": arms, "tests": tests}
    return Demo(data, _notes(study, chosen, calibrated))
