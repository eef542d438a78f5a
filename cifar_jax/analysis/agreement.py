"""Compare the predictions of several runs on the same images. Pure functions of arrays."""

import numpy as np

from cifar_jax.study.measures import variance_parts


def agreement(predicted: np.ndarray) -> np.ndarray:
    """Return the share of images on which two runs predict the same class, float64 (runs, runs).

    Args:
        predicted: integers (runs, N).
    """
    return np.array([[np.mean(a == b) for b in predicted] for a in predicted])


def common_errors(wrong: np.ndarray) -> np.ndarray:
    """Return the share of the images with an error in either run that both runs get wrong.

    Args:
        wrong: bool (runs, N).

    Returns:
        float64 (runs, runs); NaN for two runs without errors.
    """
    both = np.array([[np.sum(a & b) for b in wrong] for a in wrong], float)
    either = np.array([[np.sum(a | b) for b in wrong] for a in wrong], float)
    return np.divide(both, either, out=np.full_like(both, np.nan), where=either > 0)


def over_pairs(matrix: np.ndarray) -> float | None:
    """Return the mean of a symmetric matrix (runs, runs) over the pairs of different runs."""
    values = matrix[np.triu_indices(len(matrix), 1)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def wrong_counts(wrong: np.ndarray) -> list[int]:
    """Return how many images 0, 1, ..., all runs get wrong. `wrong` is bool (runs, N)."""
    return np.bincount(wrong.sum(axis=0), minlength=len(wrong) + 1).tolist()


def calibrated_variance(predicted: np.ndarray, classes: int) -> float | None:
    """Return the variance of the test accuracy that a calibrated ensemble predicts.

    Let p_i(k) be the share of all possible seeds that predict class k for image i. If the ensemble
    is calibrated, the label of image i is k with this chance. A run is right on an image of label
    k with chance p_i(k), so its variance is p_i(k) (1 - p_i(k)). Runs err independently on
    different images (Jordan 2023, arXiv 2304.01910). So the accuracy on N images has the variance

        sum over i and k of p_i(k)^2 (1 - p_i(k)) / N^2.

    For two classes this is the error rate / (2 N), the formula of that paper. Let n of S seeds
    predict class k. Then n (n - 1) / (S (S - 1)) estimates p^2 without bias, and
    n (n - 1) (n - 2) / (S (S - 1) (S - 2)) estimates p^3.

    Args:
        predicted: integers (seeds, N).
        classes: their number.

    Returns:
        The variance of a fraction; None below three seeds.
    """
    seeds, images = predicted.shape
    if seeds < 3:
        return None
    square = cube = 0.0
    for label in range(classes):
        n = (predicted == label).sum(axis=0).astype(float)
        square += float((n * (n - 1)).sum()) / (seeds * (seeds - 1))
        cube += float((n * (n - 1) * (n - 2)).sum()) / (seeds * (seeds - 1) * (seeds - 2))
    return (square - cube) / images**2


def measured_variance(right: np.ndarray) -> tuple[float | None, float | None]:
    """Return the variance of the accuracy over seeds: on these images, and on their distribution.

    See `study.measures.variance_parts`. `right` is bool (seeds, N).
    """
    parts = variance_parts(right)
    return parts["total"], parts["distribution"]
