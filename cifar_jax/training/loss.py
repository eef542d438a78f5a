"""What is minimised: cross-entropy, optionally of smoothed and of mixed labels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Mixed(NamedTuple):
    """The second label of each image under mixup.

    Attributes:
        weight: float (), of the first label.
        labels: int32 (B,).
    """

    weight: jax.Array
    labels: jax.Array


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Mean softmax cross-entropy in nats of logits (B, classes).

    With label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7) the target is
    1 - label_smoothing for the label plus label_smoothing / classes for every class; PyTorch's
    `CrossEntropyLoss(label_smoothing)`.

    Args:
        labels: int32 (B,).
    """
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing)).mean()


def training_loss(
    logits: jax.Array, labels: jax.Array, label_smoothing: float, mixed: Mixed | None
) -> jax.Array:
    """The loss of a batch; under mixup the blend of both labels' losses, by their weights."""
    loss = cross_entropy(logits, labels, label_smoothing)
    if mixed is None:
        return loss
    other = cross_entropy(logits, mixed.labels, label_smoothing)
    return mixed.weight * loss + (1 - mixed.weight) * other


def count_correct(logits: jax.Array, labels: jax.Array, mixed: Mixed | None) -> jax.Array:
    """Images whose largest logit is their label: int32 ().

    Under mixup a hit of either label counts by its weight, as in the paper's code: float32 ().
    """
    predicted = jnp.argmax(logits, axis=-1)
    correct = jnp.sum(predicted == labels, dtype=jnp.int32)
    if mixed is None:
        return correct
    other = jnp.sum(predicted == mixed.labels, dtype=jnp.int32)
    return (mixed.weight * correct + (1 - mixed.weight) * other).astype(jnp.float32)
