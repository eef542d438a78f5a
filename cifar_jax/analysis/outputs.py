"""Compute logits and features of any number of images with one compiled program."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.analysis.lacking import Lacking
from cifar_jax.core.train import Experiment, TrainState, predict
from cifar_jax.kernels import jit
from cifar_jax.study.network import forward

CHUNK = 1_000  # images in a call
_FEATURES = "analysed_features"
_LAST = (nn.Dense, nn.DenseGeneral)


class NoFeatures(Lacking):
    """A network has no dense layer, so it has no features in this sense."""


class Outputs(NamedTuple):
    """Outputs of a network in evaluation mode.

    Attributes:
        logits: float32 (N, classes).
        features: float32 (N, D), the input of the last dense layer; None if not asked for.
    """

    logits: np.ndarray
    features: np.ndarray | None = None


def _forward(experiment: Experiment, state: TrainState, images: jax.Array, **options: Any) -> Any:
    params, batch_stats = experiment.evaluated(state)
    return forward(experiment, {"params": params, "batch_stats": batch_stats}, images, **options)


def last_dense(experiment: Experiment, state: TrainState, images: Any) -> tuple[str, ...]:
    """Return the path of the dense layer that a model calls last.

    Args:
        experiment: its model is any Flax module, also within `kernels.fast`.
        state: of the model.
        images: uint8 (N, H, W, C), or their shape and dtype.

    Raises:
        NoFeatures: the model has no dense layer.
    """
    called: list[tuple[str, ...]] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, _LAST) and context.method_name == "__call__":
            called.append(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(partial(_forward, experiment), state, images)
    if not called:
        raise NoFeatures("the network has no dense layer, so it has no features in this sense")
    return called[-1]


def _with_features(
    experiment: Experiment, path: tuple[str, ...], state: TrainState, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return logits, (N, classes), and the input of the dense layer at `path`, (N, D)."""

    def keep(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.path == path and context.method_name == "__call__":
            x = args[0] if args else kwargs["inputs"]
            context.module.sow("intermediates", _FEATURES, x)
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        logits, sown = _forward(experiment, state, images, mutable=["intermediates"])
    found = sown["intermediates"]
    for name in path:
        found = found[name]
    return logits, found[_FEATURES][-1].reshape(len(images), -1)


def compile_outputs(
    experiment: Experiment, state: TrainState, shape: tuple[int, ...], features: bool
) -> Callable[[TrainState, jax.Array], tuple[jax.Array, ...]]:
    """Compile a function from a state and `CHUNK` images to logits, and features if asked.

    Args:
        experiment: of the runs.
        state: an example.
        shape: of an image, (H, W, C).
        features: whether to return features.

    Raises:
        NoFeatures: features are asked for, and the model has no dense layer.
    """
    images = jax.ShapeDtypeStruct((CHUNK, *shape), jnp.uint8)
    if not features:
        compiled: Any = jit(partial(predict, experiment)).lower(state, images).compile()
        return lambda state, images: (compiled(state, images),)
    size = next(n for n in range(min(experiment.eval_batch_size, CHUNK), 0, -1) if CHUNK % n == 0)
    example = jax.ShapeDtypeStruct((size, *shape), jnp.uint8)
    path = last_dense(experiment, state, example)

    def both(state: TrainState, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        batches = images.reshape(-1, size, *shape)
        one = partial(_with_features, experiment, path, state)
        logits, found = jax.lax.map(one, batches)
        return logits.reshape(CHUNK, -1), found.reshape(CHUNK, -1)

    program: Any = jit(both).lower(state, images).compile()
    return program


def compute(
    program: Callable[[TrainState, jax.Array], tuple[jax.Array, ...]],
    state: TrainState,
    images: np.ndarray,
) -> Outputs:
    """Return the outputs of all images, uint8 (N, H, W, C), in calls of `CHUNK` images."""
    found = []
    for start in range(0, len(images), CHUNK):
        chunk = np.asarray(images[start : start + CHUNK])
        # Repeats of the last image fill the last call. No image changes another's outputs.
        rows = np.minimum(np.arange(CHUNK), len(chunk) - 1)
        arrays = program(state, jax.device_put(chunk[rows]))
        found.append([np.asarray(array, np.float32)[: len(chunk)] for array in arrays])
    return Outputs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
