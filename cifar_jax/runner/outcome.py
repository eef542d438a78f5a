"""Write the results and predictions of a run at its end."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from cifar_jax.names import PREDICTIONS
from cifar_jax.runner import provenance
from cifar_jax.runner.evaluation import Evaluation
from cifar_jax.runner.results import Diverged, DivergedAt, Finished, write_results
from cifar_jax.storage import sha256, write_atomically

# Most classes for a confusion matrix in `results.json`. 1,000 classes would take 9 MB of JSON.
MOST_IN_MATRIX = 200


def _made_by() -> dict[str, Any]:
    """Return the fields on code and time of new results."""
    return {
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def divergence(diverged: DivergedAt, **common: Any) -> Diverged:
    """Return the results of a run that diverged. Arguments as in `write_divergence`."""
    return Diverged(**common, **_made_by(), diverged=diverged)


def write_divergence(workdir: Path, diverged: DivergedAt, **common: Any) -> Diverged:
    """Write the `results.json` of a run that diverged.

    Args:
        workdir: the run's directory.
        diverged: where it diverged.
        common: the fields of `Diverged`, except those on code and time.
    """
    results = divergence(diverged, **common)
    write_results(workdir, results)
    return results


def finished(evaluation: Evaluation, **common: Any) -> Finished:
    """Return the results of a finished run. Arguments as in `write_finished`."""
    classes = common["dataset"].classes
    accuracies = [None if np.isnan(x) else float(x) for x in evaluation.per_class_accuracy]
    few = len(classes) <= MOST_IN_MATRIX
    return Finished(
        **common,
        **_made_by(),
        test_loss=evaluation.loss,
        test_accuracy=evaluation.accuracy,
        per_class_accuracy=dict(zip(classes, accuracies, strict=True)),
        confusion_matrix=evaluation.confusion.tolist() if few else None,
        predictions=PREDICTIONS,
    )


def write_finished(
    workdir: Path, evaluation: Evaluation, logits: np.ndarray, labels: np.ndarray, **common: Any
) -> Finished:
    """Write `predictions.npz` and then `results.json`.

    Args:
        workdir: the run's directory.
        evaluation: of the test images.
        logits: float32 (N, classes), of the test images.
        labels: int32 (N,), their true classes.
        common: the fields of `Finished`, except those on test, code and time.
    """
    predicted = logits.argmax(axis=1).astype(np.int32)
    write_atomically(
        workdir / PREDICTIONS,
        lambda file: np.savez_compressed(file, logits=logits, predicted=predicted, label=labels),
    )
    results = structs.replace(
        finished(evaluation, **common), predictions_sha256=sha256(workdir / PREDICTIONS)
    )
    write_results(workdir, results)
    return results
