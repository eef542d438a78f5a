"""What a prediction needs besides the network: a temperature, and a threshold of the energy score.

Both come from the run's validation images, so neither sees a test image. `predict.json` keeps them,
with the digest of the networks that they are for.

Several networks are one ensemble (Lakshminarayanan et al. 2017, arXiv 1612.01474): the mean of
their softmax probabilities. The temperature divides the logarithm of that mean: pool first, then
calibrate (Rahaman and Thiery 2021, arXiv 2007.08792, section 5). For one network this is the
temperature of Guo et al. 2017, as in `calibration`. The energy score of an ensemble is the mean of
its networks'.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from cifar_jax.names import ANALYSIS, PREDICT
from cifar_jax.runner.locate import study_of
from cifar_jax.runner.results import (
    Count,
    Damaged,
    Finished,
    Line,
    Number,
    read_plain,
    read_results,
    validate,
)
from cifar_jax.storage import write_sealed

VERSION = 1
ONE_IN = 20  # at most one in so many validation images counts as unlike the training images
VALIDATION = "validation images"

Temperature = Annotated[float, Meta(gt=0, le=1e3)]


class Fitted(Struct, frozen=True, kw_only=True):
    """`predict.json`.

    Attributes:
        networks: digest of each network, see `Network.digest`.
        temperature: None if there is nothing to fit it on.
        source: where the temperature is from, a file or images.
        threshold: of the energy score; an image with a smaller one counts as unlike the training
            images. None if there is nothing to fit it on.
        images: number of validation images.
        version: of this format.
    """

    networks: tuple[Line, ...]
    temperature: Temperature | None = None
    source: Line = VALIDATION
    threshold: Number | None = None
    images: Count = 0
    version: int = VERSION


def pool(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean probabilities, float64 (N, classes).

    Args:
        logits: of each network, float (networks, N, classes).
    """
    from scipy import special

    each = special.log_softmax(logits.astype(np.float64), axis=2)
    pooled: np.ndarray = special.logsumexp(each, axis=0) - np.log(len(logits))
    return pooled


def energy(logits: np.ndarray) -> np.ndarray:
    """Return the mean energy score of the networks, float64 (N,); see `detection.energy`.

    Args:
        logits: of each network, float (networks, N, classes).
    """
    from cifar_jax.analysis import detection

    each = [detection.energy(of) for of in logits]
    return np.mean(each, axis=0)


def lowest_known(scores: np.ndarray) -> float:
    """Return the highest threshold that at least 95 % of the scores, floats (N,), reach."""
    return float(np.sort(scores)[len(scores) // ONE_IN])


def fit(
    networks: tuple[str, ...],
    logits: np.ndarray,
    labels: np.ndarray,
    measured: float | None = None,
) -> Fitted:
    """Fit temperature and threshold.

    Args:
        networks: digest of each.
        logits: of the validation images by each network, float (networks, N, classes).
        labels: of the validation images, integers (N,).
        measured: the temperature in `analysis.json`, which is not fitted again.
    """
    from cifar_jax.analysis.calibration import fit_temperature  # It imports Matplotlib.

    return Fitted(
        networks=networks,
        temperature=fit_temperature(pool(logits), labels) if measured is None else measured,
        source=VALIDATION if measured is None else ANALYSIS,
        threshold=lowest_known(energy(logits)),
        images=len(labels),
    )


def measured_temperature(run: Path, fingerprint: str) -> float | None:
    """Return the temperature in `analysis.json` of a run or of its study; None without one.

    Args:
        run: the run's directory.
        fingerprint: of its images.
    """
    from cifar_jax.analysis.record import read_analysis  # It imports what draws the page.

    results = read_results(run)
    if not isinstance(results, Finished):
        return None
    for workdir in (run, study_of(run)):
        try:
            analysis = read_analysis(workdir, fingerprint)
        except Damaged:
            continue
        part = analysis.parts.get("calibration") if analysis else None
        for measured in part.runs if part else ():
            if measured.predictions == results.predictions_sha256:
                return validate(measured.record.get("temperature"), Temperature, workdir / ANALYSIS)
    return None


def read_fitted(directory: Path, networks: tuple[str, ...]) -> Fitted | None:
    """Return what was fitted for these networks, or None if nothing was.

    Args:
        directory: of the run, or of the study's arm.
        networks: digest of each.
    """
    path = directory / PREDICT
    try:
        found: Fitted = validate(read_plain(path), Fitted, path)
    except (FileNotFoundError, Damaged):
        return None
    return found if (found.version, found.networks) == (VERSION, networks) else None


def write_fitted(directory: Path, fitted: Fitted) -> None:
    """Write `predict.json` atomically, with the digest of its content."""
    write_sealed(directory / PREDICT, msgspec.to_builtins(fitted))
