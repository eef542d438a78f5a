"""Scores that separate known from unknown images, and how well they do. NumPy and SciPy alone.

A score is larger for an image that looks known. The measures follow OpenOOD 1.5 (Zhang et al. 2023,
arXiv 2306.09301): unknown images are the positives, and the score's negative ranks them.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, special

NEIGHBOURS = 50
RECALL = 0.95
_BLOCK = 500  # images compared with all training images at once


class Detection(NamedTuple):
    """How well a score separates known from unknown images.

    Attributes:
        auroc: chance that a known image scores higher than an unknown one; ties count half.
        aupr_in: area under precision over recall, with known images as positives.
        aupr_out: the same, with unknown images as positives.
        fpr95: share of the known images that count as unknown, at the highest threshold that
            finds 95 % of the unknown ones.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float


def _curve(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hits and false alarms at each distinct threshold, from the highest: int64 (T,)."""
    scores = np.concatenate([positive, negative])
    is_positive = np.arange(len(scores)) < len(positive)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(is_positive[order])[ends]
    return hits, ends + 1 - hits


def _area_under_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the area under precision over recall, by the trapezoidal rule.

    It begins at recall 0 with precision 1, as in scikit-learn's `precision_recall_curve`.
    """
    hits, alarms = _curve(positive, negative)
    recall = np.concatenate([[0.0], hits / len(positive)])
    precision = np.concatenate([[1.0], hits / (hits + alarms)])
    return min(float(np.trapezoid(precision, recall)), 1.0)  # rounding can exceed 1


def detect(known: np.ndarray, unknown: np.ndarray) -> Detection:
    """Return how well scores separate known images, (N,), from unknown ones, (M,)."""
    hits, alarms = _curve(-unknown, -known)
    found, false = hits / len(unknown), alarms / len(known)
    area = np.trapezoid(np.concatenate([[0.0], found]), np.concatenate([[0.0], false]))
    return Detection(
        auroc=min(float(area), 1.0),
        aupr_in=_area_under_precision(known, unknown),
        aupr_out=_area_under_precision(-unknown, -known),
        fpr95=float(false[np.argmax(found >= RECALL)]),
    )


def maximum_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the largest probability (Hendrycks and Gimpel 2017, arXiv 1610.02136)."""
    found: np.ndarray = special.softmax(logits.astype(np.float64), axis=1).max(axis=1)
    return found


def maximum_logit(logits: np.ndarray) -> np.ndarray:
    """Return the largest logit (Hendrycks et al. 2022, arXiv 1911.11132)."""
    found: np.ndarray = logits.astype(np.float64).max(axis=1)
    return found


def energy(logits: np.ndarray) -> np.ndarray:
    """Return the negative energy at temperature 1 (Liu et al. 2020, arXiv 2010.03759)."""
    found: np.ndarray = special.logsumexp(logits.astype(np.float64), axis=1)
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    """Return features with length 1, float32."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    found: np.ndarray = (features / np.maximum(length, 1e-10)).astype(np.float32)
    return found


def nearest(train: np.ndarray, features: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return the negative distance to the k-th nearest training image (Sun et al. 2022).

    arXiv 2204.06507. Distances are Euclidean, between features of length 1.

    Args:
        train: features of the training images, (N, D).
        features: of the images, (M, D).
        k: at most N.
    """
    known, others = _unit(train), _unit(features)
    k = min(k, len(known))
    found = np.empty(len(others))
    for start in range(0, len(others), _BLOCK):
        cosines = others[start : start + _BLOCK] @ known.T
        kth = np.partition(cosines, len(known) - k, axis=1)[:, len(known) - k]
        squares = np.maximum(2.0 - 2.0 * kth.astype(np.float64), 0.0)
        found[start : start + _BLOCK] = -np.sqrt(squares)
    return found


def mahalanobis(train: np.ndarray, labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the negative squared Mahalanobis distance to the nearest class (Lee et al. 2018).

    arXiv 1807.03888, without its perturbation and its other layers. All classes share one
    covariance, that of the training features around the means of their classes. Its
    pseudo-inverse ignores features without variance.

    Args:
        train: features of the training images, (N, D).
        labels: of the training images, integers (N,).
        features: of the images, (M, D).
    """
    classes = np.unique(labels)
    train = train.astype(np.float64)
    means = np.stack([train[labels == label].mean(axis=0) for label in classes])
    centred = train - means[np.searchsorted(classes, labels)]
    precision = linalg.pinvh(centred.T @ centred / len(train))
    x = features.astype(np.float64)
    weighted = x @ precision
    own = np.einsum("nd,nd->n", weighted, x)
    to_mean = weighted @ means.T
    of_means = np.einsum("cd,de,ce->c", means, precision, means)
    distances = own[:, None] - 2 * to_mean + of_means
    found: np.ndarray = -distances.min(axis=1)
    return found


LOGIT_SCORES = {
    "softmax": maximum_softmax,
    "logit": maximum_logit,
    "energy": energy,
}
