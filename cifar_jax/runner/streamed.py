"""Compile an epoch over images on the host, which sends several batches a call."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.core import train as core
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, Metrics, TrainState
from cifar_jax.data.streaming import import_grain, stream_batches
from cifar_jax.kernels import jit
from cifar_jax.runner.background import Background
from cifar_jax.runner.devices import batch_sharding, divided, mesh_of, of_shares, own_share
from cifar_jax.runner.programs import (
    CompiledEpoch,
    End,
    compile_in_background,
    jit_over_runs,
)

TOGETHER = 8
"""Batches in a call. On a CPU, a call of one batch asks for all its memory again."""


class HostData(NamedTuple):
    """Images on the host, and the indices of those to train on.

    Attributes:
        images: uint8 (N, H, W, C), usually memory-mapped.
        labels: int32 (N,).
        rows: indices of the images to train on, integers (n,).
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


def _filled(part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return images or labels, (n, ...), as (batches, B, ...). Zeros fill the missing ones.

    `size` is (batches, B).
    """
    missing = math.prod(size) - len(part)
    if missing:
        part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
    return part.reshape(*size, *part.shape[1:])


class _Steps:
    """Compiled steps over batches from the host: several full ones a call, and the partial one.

    Arguments are those of `compile_stream_epoch`.
    """

    def __init__(
        self,
        experiment: Experiment,
        hyper: Hyper,
        state: TrainState,
        source: HostData,
        together: int,
    ) -> None:
        self._source, self._n = source, len(source.rows)
        self._mesh, self._batch = mesh_of(state.step), experiment.batch_size
        self._experiment = divided(experiment, self._mesh)
        full, size = divmod(self._n, self._batch)
        self._together = 1 if self._mesh else max(1, min(together, full))
        self._full: Any = None
        self._last: Any = None
        if full and self._together > 1:
            self._full = self._compile_several(hyper, state)
        elif full:
            self._full = self._compile_one(hyper, state, self._batch)
        if size:
            self._last = self._compile_one(hyper, state, size)

    def _step(
        self, hyper: Hyper, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> TrainState:
        """Train on one batch: uint8 (B, H, W, C), int32 (B,)."""
        return core.train_step(self._experiment, hyper, self._n, state, images, labels)

    def _several(
        self,
        hyper: Hyper,
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        count: jax.Array,
    ) -> TrainState:
        """Train on the first `count` batches: uint8 (batches, B, H, W, C), int32 (batches, B)."""

        def body(i: jax.Array, state: TrainState) -> TrainState:
            return self._step(hyper, state, images[i], labels[i])

        return lax.fori_loop(0, count, body, state)

    def _batch_shapes(self, *size: int) -> tuple[Any, Any]:
        """Return the shapes of images and labels, of which there are (B,) or (batches, B)."""
        where = batch_sharding(self._mesh, size[-1])
        shape = *size, *self._source.images.shape[1:]
        images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=where)
        return images, jax.ShapeDtypeStruct(size, jnp.int32, sharding=where)

    def _compile_several(self, hyper: Hyper, state: TrainState) -> Background[Any]:
        jitted = jit_over_runs(self._several, state, donate_argnums=1)
        batches = self._batch_shapes(self._together, self._batch)
        return compile_in_background(jitted, hyper, state, *batches, np.int32(0))

    def _compile_one(self, hyper: Hyper, state: TrainState, size: int) -> Background[Any]:
        jitted = jit_over_runs(self._step, state, donate_argnums=1)
        return compile_in_background(jitted, hyper, state, *self._batch_shapes(size))

    def wait(self) -> None:
        """Wait until all is compiled."""
        for program in filter(None, (self._full, self._last)):
            program.result()

    def train_on(self, hyper: Hyper, state: TrainState, rows: np.ndarray) -> TrainState:
        """Train on full batches of images, given by their rows. The state before is kept."""
        state = jax.tree.map(jnp.copy, state)
        own = own_share(self._mesh, self._batch)
        rows = rows.reshape(-1, self._batch)[:, own].reshape(-1)
        size = self._together * (own.stop - own.start)
        for share in stream_batches(self._source.images, self._source.labels, rows, size):
            if self._together > 1:
                filled = (_filled(part, (self._together, self._batch)) for part in share)
                batches = *filled, np.int32(len(share[1]) // self._batch)
            else:
                batches = of_shares(share, self._mesh, self._batch)
            state = self._full.result()(hyper, state, *batches)
        return state

    def finish(self, hyper: Hyper, state: TrainState, rows: np.ndarray) -> TrainState:
        """Train on the images of the last, partial batch, if there is one."""
        if not self._last:
            return state
        own = rows[own_share(self._mesh, len(rows))]
        share = self._source.images[own], self._source.labels[own]
        batch = of_shares(share, self._mesh, len(rows))
        new: TrainState = self._last.result()(hyper, jax.tree.map(jnp.copy, state), *batch)
        return new


def compile_stream_epoch(
    experiment: Experiment,
    hyper: Hyper,
    state: TrainState,
    source: HostData,
    data: Data,
    together: int = TOGETHER,
) -> CompiledEpoch:
    """Compile an epoch over images on the host. It has the same batches in the same order.

    Args:
        hyper, state: examples with the shapes of one run, with or without a leading axis.
        source: training images.
        data: validation images, on the device. Its training images are not used.
        together: full batches in a call, which are a loop; 1 for a model that is slow in loops.
            Several devices take 1.

    Raises:
        UserError: Grain cannot be imported.
    """
    import_grain()  # First, because compiling takes long.
    n, batch = len(source.rows), experiment.batch_size
    steps = _Steps(experiment, hyper, state, source, together)
    end = End(experiment, hyper, state, data, n)
    steps.wait()
    end.program.result()
    order = jit(core.epoch_order, static_argnums=2)

    def rows_of(state: TrainState) -> np.ndarray:
        epoch = state.step.item() // experiment.steps_per_epoch(n)
        return source.rows[np.asarray(order(state.key.reshape(()), epoch, n))]

    def advance(hyper: Hyper, state: TrainState, start: int, stop: int) -> TrainState:
        return steps.train_on(hyper, state, rows_of(state)[start * batch : stop * batch])

    def finish(hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        rows = rows_of(state)[n - n % batch :]
        return end.finish(hyper, steps.finish(hyper, state, rows))

    return CompiledEpoch(n // batch, experiment.steps_per_epoch(n), advance, finish, end.predict)
