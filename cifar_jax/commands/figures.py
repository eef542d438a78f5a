"""Draw the figures of a finished run."""

from pathlib import Path

import msgspec
import numpy as np

from cifar_jax.data.subset import is_synthetic
from cifar_jax.device import peak_memory_bytes
from cifar_jax.names import RESULTS
from cifar_jax.report import figures
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.runner.results import Finished, write_results


def caption(results: Finished) -> str:
    """Return the title of a run's figures. Synthetic images are never called CIFAR-10."""
    dataset = results.dataset.name
    name = f"{dataset} images (not CIFAR-10)" if is_synthetic(dataset) else dataset
    return f"{name}, {results.model}, norm {results.norm}, seed {results.seed}"


def draw(workdir: Path, results: Finished) -> tuple[Finished, list[str]]:
    """Draw the figures of a finished run, and update the peak memory in its results.

    Args:
        workdir: the run's directory.
        results: the run's `results.json`.

    Returns:
        The updated `results.json`, and a line for each failure.
    """
    with np.load(workdir / results.predictions, allow_pickle=False) as predictions:
        confusion = evaluate_logits(predictions["logits"], predictions["label"]).confusion
    problems = figures.draw_run(workdir, results, confusion, caption(results))
    results = msgspec.structs.replace(results, peak_memory_bytes=peak_memory_bytes())
    try:
        write_results(workdir, results)
    except OSError as error:
        why = f"its peak memory does not include the figures ({error.strerror})"
        problems.append(f"warning: {workdir / RESULTS}: {why}")
    return results, problems
