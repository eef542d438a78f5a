"""Find images whose label may be wrong, by confident learning.

Northcutt, Jiang and Chuang 2021, arXiv 1911.00068. The library `cleanlab` computes it. It is
optional: `pip install cifar_jax[errors]`.
"""

from importlib import metadata

import numpy as np

from cifar_jax.analysis.lacking import Lacking


def cleanlab_version() -> str | None:
    """Return the version of cleanlab; None if it is not installed."""
    try:
        return metadata.version("cleanlab")
    except metadata.PackageNotFoundError:
        return None


def label_issues(labels: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the rows whose label may be wrong, the most suspicious first.

    Args:
        labels: integers (N,).
        probabilities: float64 (N, classes), of networks that were not trained on these images.

    Raises:
        Lacking: cleanlab is not installed, or a class has no image.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise Lacking(
            "label-noise candidates need cleanlab; install it with pip install cifar_jax[errors]"
        ) from None
    if len(np.unique(labels)) < probabilities.shape[1]:
        raise Lacking("label-noise candidates need an image of every class")
    found = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return [int(row) for row in found]
