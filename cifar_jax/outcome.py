"""The end of a run: predictions, results, and then figures."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cifar_jax.data.subset import is_synthetic
from cifar_jax.device import peak_memory_bytes
from cifar_jax.names import PREDICTIONS, RESULTS
from cifar_jax.report import figures, provenance
from cifar_jax.report.evaluation import Evaluation
from cifar_jax.results import Diverged, DivergedAt, Finished, write_results
from cifar_jax.storage import sha256, write_atomically

# Classes; of more, the predictions alone have the confusions: 1,000 classes are 9 MB of JSON.
MOST_IN_MATRIX = 200


def caption(results: Finished) -> str:
    """Title of a run's figures; nobody may take the synthetic set for CIFAR-10."""
    dataset = results.dataset.name
    name = f"{dataset} images (not CIFAR-10)" if is_synthetic(dataset) else dataset
    return f"{name}, {results.model}, norm {results.norm}, seed {results.seed}"


def _made_by() -> dict[str, Any]:
    """Code and time of results that are written now."""
    return {
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_divergence(workdir: Path, diverged: DivergedAt, **common: Any) -> Diverged:
    """Write the `results.json` of a run whose loss stopped being finite.

    Args:
        workdir: the run's directory.
        diverged: where.
        common: the other fields of `Diverged`, without code and time.
    """
    results = Diverged(**common, **_made_by(), diverged=diverged)
    write_results(workdir, results)
    return results


def write_finished(
    workdir: Path, evaluation: Evaluation, logits: np.ndarray, labels: np.ndarray, **common: Any
) -> Finished:
    """Write predictions and then, atomically, `results.json`.

    Args:
        workdir: the run's directory.
        evaluation: of the test set.
        logits: float32 (N, classes), of the test images.
        labels: int32 (N,), their true classes.
        common: the other fields of `Finished`, without code and time.
    """
    classes = common["dataset"].classes
    predicted = logits.argmax(axis=1).astype(np.int32)
    write_atomically(
        workdir / PREDICTIONS,
        lambda file: np.savez_compressed(file, logits=logits, predicted=predicted, label=labels),
    )
    accuracies = [None if np.isnan(x) else float(x) for x in evaluation.per_class_accuracy]
    few = len(classes) <= MOST_IN_MATRIX
    results = Finished(
        **common,
        **_made_by(),
        test_loss=evaluation.loss,
        test_accuracy=evaluation.accuracy,
        per_class_accuracy=dict(zip(classes, accuracies, strict=True)),
        confusion_matrix=evaluation.confusion.tolist() if few else None,
        predictions=PREDICTIONS,
        predictions_sha256=sha256(workdir / PREDICTIONS),
    )
    write_results(workdir, results)
    return results


def draw(workdir: Path, results: Finished, confusion: np.ndarray) -> tuple[Finished, list[str]]:
    """Draw the figures of a finished run, and add the memory that they took to its results.

    Args:
        workdir: the run's directory, with its results.
        results: what `write_finished` returned.
        confusion: of the test set, see `Evaluation`.

    Returns:
        What is in `results.json` now, and a line for each thing that failed.
    """
    problems = figures.draw_run(workdir, results, confusion, caption(results))
    results = msgspec.structs.replace(results, peak_memory_bytes=peak_memory_bytes())
    try:
        write_results(workdir, results)
    except OSError as error:
        why = f"the peak memory leaves out the figures ({error.strerror})"
        problems.append(f"warning: {workdir / RESULTS}: {why}")
    return results, problems
