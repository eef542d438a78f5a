"""One step of training on one batch."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cifar_jax.data.augment import normalise, random_crop_and_flip
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import AUGMENT, DROPOUT, TrainSpec, TrainState, draw_key, optimizer


class StepMetrics(NamedTuple):
    """Running metrics of one batch, in train mode, before its update.

    Attributes:
        loss: float32 (), mean cross-entropy in nats.
        correct: int32 (), images whose largest logit is the right one.
    """

    loss: jax.Array
    correct: jax.Array


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
    if spec.augment:
        images = random_crop_and_flip(draw_key(state.key, AUGMENT, state.step), images)
    x = normalise(images, spec.dtype)
    dropout_key = draw_key(state.key, DROPOUT, state.step)

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = spec.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer(spec, hyper, n_train).update(
        grads, state.opt_state, state.params
    )
    correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.int32)
    new_state = replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return new_state, StepMetrics(loss, correct)
