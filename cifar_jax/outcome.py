"""What a run leaves at its end: predictions, results, and then figures."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.data.subset import is_synthetic
from cifar_jax.device import peak_memory_bytes
from cifar_jax.report import figures, files, provenance
from cifar_jax.report.evaluation import Evaluation
from cifar_jax.runner.directory import PREDICTIONS, RESULTS
from cifar_jax.runner.group import Row
from cifar_jax.storage import sha256

# Classes; of more, the predictions alone have the confusions: 1,000 classes are 9 MB of JSON.
MOST_IN_MATRIX = 200


def caption(dataset: str, model: str, norm: str, seed: int) -> str:
    """Title of a run's figures; nobody may take the synthetic set for CIFAR-10."""
    name = f"{dataset} images (not CIFAR-10)" if is_synthetic(dataset) else dataset
    return f"{name}, {model}, norm {norm}, seed {seed}"


def _write_outcome(workdir: Path, status: str, results: Row) -> Row:
    """Write `results.json`: how a run ended, and what made it."""
    results = {
        "status": status,
        **results,
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_sealed(workdir / RESULTS, results)
    return results


def write_divergence(workdir: Path, divergence: Row, **rest: Any) -> Row:
    """Write the `results.json` of a run whose loss stopped being finite: it has no test accuracy.

    Args:
        workdir: the run's directory.
        divergence: epoch, step, and perhaps the operation.
        rest: further entries.

    Returns:
        What was written.
    """
    return _write_outcome(workdir, "diverged", {**rest, "diverged": divergence})


def write_results(
    workdir: Path, evaluation: Evaluation, logits: np.ndarray, labels: np.ndarray, **rest: Any
) -> Row:
    """Write predictions and, last and at once, `results.json`.

    Args:
        workdir: the run's directory.
        evaluation: of the test set.
        logits: float32 (N, classes), of the test images.
        labels: int32 (N,), their true classes.
        rest: further entries of the results.

    Returns:
        What was written to `results.json`.
    """
    classes = rest["dataset"]["classes"]
    predicted = logits.argmax(axis=1).astype(np.int32)
    files.write_atomically(
        workdir / PREDICTIONS,
        lambda file: np.savez_compressed(file, logits=logits, predicted=predicted, label=labels),
    )
    per_class = evaluation.per_class_accuracy.tolist()
    few = len(classes) <= MOST_IN_MATRIX
    results = {
        **rest,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "per_class_accuracy": dict(zip(classes, per_class, strict=True)),
        "confusion_matrix": evaluation.confusion.tolist() if few else None,
        "predictions": PREDICTIONS,
        "predictions_sha256": sha256(workdir / PREDICTIONS),
    }
    return _write_outcome(workdir, "finished", results)


def draw(workdir: Path, results: Row, confusion: np.ndarray) -> tuple[Row, list[str]]:
    """Draw the figures of a finished run, and note the peak of memory that they took.

    Args:
        workdir: the run's directory, with its results.
        results: what `write_results` returned.
        confusion: of the test set, see `Evaluation`.

    Returns:
        What is in `results.json` now, and a line for each thing that failed.
    """
    title = caption(
        results["dataset"]["name"], *(results[key] for key in ("model", "norm", "seed"))
    )
    problems = figures.draw_run(workdir, results, confusion, title)
    peak = {"peak_memory_bytes": peak_memory_bytes()}
    try:
        files.write_sealed(workdir / RESULTS, {**results, **peak})
    except OSError as error:
        why = f"the peak memory leaves out the figures ({error.strerror})"
        problems.append(f"warning: {workdir / RESULTS}: {why}")
    return {**results, **peak}, problems
