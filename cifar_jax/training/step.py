"""One step of training on one batch."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import optax

from cifar_jax.data.augment import normalise, random_crop_and_flip
from cifar_jax.data.regularise import mixup, random_cutout, random_erasing
from cifar_jax.training.loss import Mixed, count_correct, training_loss
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.precision import in_precision
from cifar_jax.training.state import (
    AUGMENT,
    CUTOUT,
    DROPOUT,
    ERASING,
    MIXUP,
    TrainSpec,
    TrainState,
    draw_key,
    optimizer,
)


class StepMetrics(NamedTuple):
    """Running metrics of one batch, in train mode, before its update.

    Attributes:
        loss: float32 (), what is minimised: mean cross-entropy in nats, of smoothed or mixed labels
            where there are such.
        correct: int32 (), images whose largest logit is the right one; under mixup float32, see
            `count_correct`.
    """

    loss: jax.Array
    correct: jax.Array


def network_inputs(
    spec: TrainSpec, state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, Mixed | None]:
    """What the network sees of a batch at a step, and the second labels under mixup.

    Crop and flip, random erasing, normalisation, cutout, mixup, in this order: padding is black,
    erased boxes are uniform noise of pixels, cut-out squares are the mean colour.

    Args:
        images: uint8 (B, H, W, 3).
        labels: int32 (B,).

    Returns:
        (B, H, W, 3), of `spec.dtype`.
    """

    def key(purpose: int) -> jax.Array:
        return draw_key(state.key, purpose, state.step)

    chosen = spec.regularisers
    if spec.augment:
        images = random_crop_and_flip(key(AUGMENT), images)
    if chosen.random_erasing:
        images = random_erasing(
            key(ERASING), images, chosen.random_erasing, chosen.erasing_area, chosen.erasing_ratio
        )
    x = normalise(images, spec.dtype)
    if chosen.cutout:
        x = random_cutout(key(CUTOUT), x, chosen.cutout)
    if not chosen.mixup:
        return x, None
    x, weight, partner = mixup(key(MIXUP), x, chosen.mixup)
    return x, Mixed(weight, labels[partner])


@in_precision
def train_step(
    spec: TrainSpec,
    hyper: Hyperparams,
    n_train: int,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """Augment, normalise, differentiate, update.

    Args:
        n_train: images in an epoch, which places the drops of the learning rate.
        images: uint8 (B, H, W, 3).
        labels: int32 (B,).
    """
    x, mixed = network_inputs(spec, state, images, labels)
    dropout_key = draw_key(state.key, DROPOUT, state.step)

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = spec.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        loss = training_loss(logits, labels, spec.regularisers.label_smoothing, mixed)
        return loss, (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer(spec, hyper, n_train).update(
        grads, state.opt_state, state.params
    )
    correct = count_correct(logits, labels, mixed)
    new_state = replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return new_state, StepMetrics(loss, correct)
