"""The unknown: what a network does with pictures that are none of its classes.

A network always names one of its classes. Five scores try to tell known from unknown images: three
of the logits, two of the features. Features are the input of the network's last dense layer. See
`detection` for the scores and measures, `unknown_sets` for the images.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from scipy import special

from cifar_jax.analysis.detection import (
    LOGIT_SCORES,
    NEIGHBOURS,
    detect,
    mahalanobis,
    maximum_softmax,
    nearest,
)
from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.numbers import (
    Compared,
    Number,
    Quantity,
    numbers_table,
    share,
    show_mean,
    verdict_sentence,
)
from cifar_jax.analysis.outputs import NoFeatures
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.analysis.unknown_plots import unknown_figures
from cifar_jax.analysis.unknown_sets import UnknownSet, find_sets
from cifar_jax.report.model_card import OTHER_CLASSES
from cifar_jax.report.section import Section
from cifar_jax.runner.results import Count, Line, Share

MOST_TRAIN = 50_000  # training images whose features are compared
CONFIDENT = 0.9
STEPS = 50  # of the curve of confidences, between 0 and 1
SCORES = {
    "softmax": "maximum softmax",
    "logit": "maximum logit",
    "energy": "energy",
    "neighbours": "nearest neighbours",
    "mahalanobis": "Mahalanobis distance",
}
_SETS = "unknown sets"


class Scores(Struct, frozen=True):
    """How well one score separates test images from unknown ones. See `detection.Detection`."""

    auroc: Share
    aupr_in: Share
    aupr_out: Share
    fpr95: Share


class Confidence(Struct, frozen=True):
    """Confidences of some images.

    Attributes:
        images: their number.
        confident: share with a confidence above 90 %.
        above: share with a confidence above 0/50, 1/50, ..., 49/50.
    """

    images: Count
    confident: Share
    above: tuple[Share, ...]

    def __post_init__(self) -> None:
        if len(self.above) != STEPS:
            raise ValueError(f"above has not {STEPS} values")


class OneSet(Struct, frozen=True):
    """One run on one set of unknown images.

    Attributes:
        name: of the set.
        confidence: on its images.
        scores: by the keys of `SCORES`; only those of logits for a network without features.
    """

    name: Line
    confidence: Confidence
    scores: dict[Line, Scores]

    def __post_init__(self) -> None:
        if list(self.scores) not in (list(SCORES), list(LOGIT_SCORES)):
            raise ValueError("the scores are not those of this version")


class Unknown(Struct, frozen=True):
    """One run on unknown images.

    Attributes:
        test: its confidences on all test images.
        wrong: on the test images that it gets wrong; None without one.
        sets: one entry for each set of unknown images.
    """

    test: Confidence
    wrong: Confidence | None
    sets: tuple[OneSet, ...]


def options(shared: Shared) -> dict[str, Any]:
    """Return names and digests of the unknown images. They are kept for all runs."""
    if shared.found_images is None:
        return {}
    shared.kept[_SETS] = find_sets(shared)
    sets = [
        {"name": of.name, "images": len(of.images), "sha256": of.sha256}
        for of in shared.kept[_SETS]
    ]
    return {"sets": sets, "neighbours": NEIGHBOURS, "training_images": MOST_TRAIN}


def _confidence(confidence: np.ndarray) -> Confidence:
    above = (confidence[:, None] > np.arange(STEPS) / STEPS).mean(axis=0)
    return Confidence(
        len(confidence), float((confidence > CONFIDENT).mean()), tuple(above.tolist())
    )


def _feature_scores(trained: TrainedRun) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the scores of features by name, fitted on the features of the training images.

    Empty for a network without features.
    """
    images, labels = trained.train_images
    rows = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), MOST_TRAIN)).astype(int))
    try:
        train = trained.outputs("train", images[rows], features=True).features
    except NoFeatures:
        return {}
    assert train is not None
    return {
        "neighbours": lambda features: nearest(train, features),
        "mahalanobis": lambda features: mahalanobis(train, labels[rows], features),
    }


def measure(trained: TrainedRun) -> Unknown:
    """Measure confidences and all scores of one run, on each set of unknown images."""
    test_images = trained.shared.images.test_images
    sets: Sequence[UnknownSet] = trained.shared.kept[_SETS]
    if not sets:
        raise Lacking("there are no images of other classes; name some with --unknown")
    of_features = _feature_scores(trained)

    def scores_of(name: str, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return confidences, (N,), and all scores by name."""
        logits, features = trained.outputs(name, images, features=bool(of_features))
        scores = {key: score(logits) for key, score in LOGIT_SCORES.items()}
        if features is not None:
            scores |= {key: score(features) for key, score in of_features.items()}
        return maximum_softmax(logits), scores

    run = trained.run
    confidence = special.softmax(run.logits.astype(np.float64), axis=1).max(axis=1)
    _, known = scores_of("test", test_images)
    found = []
    for number, (name, images) in enumerate(sets, start=1):
        trained.progress(number / (len(sets) + 1))
        own, scores = scores_of(f"unknown {name}", images)
        each = {key: Scores(*detect(known[key], scores[key])) for key in known}
        found.append(OneSet(name, _confidence(own), each))
    wrong = confidence[~run.correct]
    return Unknown(
        _confidence(confidence), _confidence(wrong) if len(wrong) else None, tuple(found)
    )


def confident_share(key: str, label: str) -> Quantity:
    """Return the quantity of the share of images with a confidence above 90 %."""
    return share(f"{key} confident", f"above 90 % confidence: {label}", "confident", 1)


_MEASURES = {
    "auroc": "AUROC",
    "fpr95": "FPR at 95 % TPR",
    "aupr_in": "AUPR, known positive",
    "aupr_out": "AUPR, unknown positive",
}


def numbers(record: Unknown) -> list[Number]:
    """Return the shares of confident images, and every measure of every score and set."""
    wrong = None if record.wrong is None else record.wrong.confident
    found = [
        Number(confident_share("known", "test images"), record.test.confident),
        Number(confident_share("wrong", "wrong test predictions"), wrong),
    ]
    found += [
        Number(confident_share(f"unknown {of.name}", of.name), of.confidence.confident)
        for of in record.sets
    ]
    for measure_, words in _MEASURES.items():
        for of in record.sets:
            for key, score in of.scores.items():
                label = f"{words}, {of.name}, {SCORES[key]}"
                quantity = share(f"{of.name} {key} {measure_}", label, measure_, 1)
                found.append(Number(quantity, getattr(score, measure_)))
    return found


def _sentences(findings: Findings[Unknown], name: str, rows: dict[str, Compared]) -> list[str]:
    """Say what the networks do with one set of unknown images."""
    study = findings.study
    confident, auroc = rows[f"unknown {name} confident"], rows[f"{name} softmax auroc"]
    several = len(findings.arms) > 1

    def of_arms(row: Compared) -> str:
        means = {arm: show_mean(row, arm) for arm in row.per_arm}
        return ", ".join(
            f"{text} with {study.label(arm)}" if several else text for arm, text in means.items()
        )

    words = [
        f"Pictures of none of the classes ({name}): a confidence of more than 90 % for "
        f"{of_arms(confident)}.",
        "The confidence ranks a test image above such a picture with a probability (AUROC; 50 % is "
        f"chance) of {of_arms(auroc)}.",
    ]
    better = verdict_sentence(study, auroc, "separates them worse", "separates them better")
    return [" ".join([*words, better]).strip()]


def section(findings: Findings[Unknown]) -> Section:
    """Return the section: confidences, AUROC of every score, all measures."""
    study = findings.study
    rows = {row.quantity.key: row for row in findings.compared}
    names = list(dict.fromkeys(of.name for found in findings.runs for of in found.record.sets))
    sentences = [line for name in names for line in _sentences(findings, name, rows)]
    if any("mahalanobis" not in of.scores for found in findings.runs for of in found.record.sets):
        sentences.append("Scores of features are not measured for networks without a dense layer.")
    conventions = (
        "Conventions of OpenOOD 1.5: unknown images are the positives of AUROC and of the false "
        "positive rate (FPR): the share of test images that count as unknown when 95 % of the "
        f"unknown ones are found. Nearest neighbours: distance to neighbour {NEIGHBOURS} among the "
        "training images. Features are the input of the last dense layer."
    )
    by_family = {
        family: [row for row in rows.values() if row.quantity.family == family]
        for family in ("confident", *_MEASURES)
    }
    tables = (
        numbers_table(study, by_family["confident"], "Share with more than 90 % confidence"),
        numbers_table(
            study,
            [*by_family["auroc"], *by_family["fpr95"]],
            "Known against unknown: AUROC and FPR",
            conventions,
        ),
        numbers_table(
            study,
            [*by_family["aupr_in"], *by_family["aupr_out"]],
            "Known against unknown: area under precision and recall",
        ),
    )
    return Section(PART.title, tuple(sentences), unknown_figures(findings, names), tables)


def card(findings: Findings[Unknown], arm: str) -> list[str]:
    """Return a line for each set of unknown images."""
    found = []
    for row in findings.compared:
        key = row.quantity.key
        of_set = row.quantity.family == "confident" and key.startswith("unknown ")
        if of_set and arm in row.per_arm:
            name = key.removeprefix("unknown ").removesuffix(" confident")
            found.append(
                f"Pictures of none of the classes ({name}): {show_mean(row, arm)} of them get more "
                "than 90 % confidence."
            )
    return found


PART = Part(
    name="unknown",
    title="Pictures of none of the classes",
    record=Unknown,
    measure=measure,
    numbers=numbers,
    section=section,
    options=options,
    card=card,
    covers=OTHER_CLASSES,
)
