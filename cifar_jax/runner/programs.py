"""Compile the programs of an epoch: over images on the device, or on the host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.core import train as core
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, Metrics, TrainState
from cifar_jax.kernels import jit, jit_once
from cifar_jax.runner.background import Background
from cifar_jax.runner.devices import (
    RUNS,
    divided,
    mesh_of,
    on_all,
    on_each,
)
from cifar_jax.runner.memory import check_memory

Tree = TypeVar("Tree")


def _first_state(
    experiment: Experiment, seed: jax.Array, image_shape: tuple[int, ...], images: jax.Array | None
) -> TrainState:
    """Make the key of a run from its seed, uint32 (), and its state by `init_state`."""
    return core.init_state(experiment, jax.random.key(seed), image_shape, images)


def first_state(
    experiment: Experiment,
    seed: int,
    image_shape: tuple[int, ...],
    images: np.ndarray | None = None,
) -> TrainState:
    """Return the state of one run before its first step. Arguments are those of `init_state`."""
    jitted = jit_once(_first_state, static_argnums=(0, 2))
    state: TrainState = jitted(experiment, np.uint32(seed), image_shape, images)
    return state


def first_shapes(
    experiment: Experiment, image_shape: tuple[int, ...], images: np.ndarray | None, runs: int
) -> TrainState:
    """Return the shapes of the stacked first states of runs. `first_state` reuses this trace."""
    jitted = jit_once(_first_state, static_argnums=(0, 2))
    one = jitted.eval_shape(experiment, np.uint32(0), image_shape, images)
    shapes: TrainState = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape), leaf.dtype), one
    )
    return shapes


def blank_state(experiment: Experiment, image_shape: tuple[int, ...]) -> TrainState:
    """Return a state of zeros, with the shapes of a run's. Nothing is compiled."""
    key = jax.random.key(0)
    like = jax.eval_shape(partial(core.init_state, experiment, image_shape=image_shape), key)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like.replace(key=None))
    state: TrainState = zeros.replace(key=key)
    return state


@jax.jit
def _stack(*trees: Tree) -> Tree:
    stacked: Tree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return stacked


def stack_runs(trees: Sequence[Tree]) -> Tree:
    """Stack the states or hyper-parameters of runs along a new leading axis."""
    return _stack(*trees)


def unstack_run(stacked: Tree, index: int) -> Tree:
    """Return one run from the result of `stack_runs`."""
    one: Tree = jax.tree.map(lambda leaf: leaf[index], stacked)
    return one


@dataclass(frozen=True)
class CompiledEpoch:
    """An epoch as two programs: `advance` for full batches, and `finish` for its end.

    They do not change the state before a call, so it can be saved during the call.
    Calling the object itself trains a whole epoch.

    Attributes:
        full: full batches in an epoch.
        steps: steps in an epoch.
        advance: takes hyper-parameters, the state after `start` batches, `start` and `stop`;
            returns the state after `stop` batches.
        finish: takes hyper-parameters and the state after all full batches; trains on the partial
            batch and validates.
        predict: takes hyper-parameters, a state and images on the host, uint8 (N, H, W, C).
            Returns logits, float (N, classes), with the state's leading axis of runs.
        slow_layers: layers that would be slow in a loop, so that a step is a call.
    """

    full: int
    steps: int
    advance: Callable[[Hyper, TrainState, int, int], TrainState]
    finish: Callable[[Hyper, TrainState], tuple[TrainState, Metrics]]
    predict: Callable[[Hyper, TrainState, np.ndarray], np.ndarray]
    slow_layers: tuple[str, ...] = ()

    def __call__(self, hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        if self.full:
            state = self.advance(hyper, state, 0, self.full)
        return self.finish(hyper, state)


def _sharding(state: TrainState) -> Any:
    """Return the placement of a state on several devices, which programs must keep, or None."""
    return state.step.sharding if mesh_of(state.step) else None


def over_runs(function: Callable[..., Any], state: TrainState) -> Callable[..., Any]:
    """Map a function of (hyper, state, ...) over runs, if the state has a leading axis of runs.

    One run is not mapped, so its program equals that of a state without the axis.
    """
    if state.step.ndim == 0:
        return function

    def mapped(hyper: Hyper, state: TrainState, *shared: Any) -> Any:
        if len(state.step) > 1:
            return jax.vmap(function, in_axes=(0, 0, *[None] * len(shared)))(hyper, state, *shared)
        result = function(unstack_run(hyper, 0), unstack_run(state, 0), *shared)
        return jax.tree.map(lambda leaf: leaf[None], result)

    return on_each(mapped, mesh_of(state.step))


def jit_over_runs(function: Callable[..., Any], state: TrainState, **options: Any) -> Any:
    """Compile `over_runs(function, state)`, whose results are placed as the state is."""
    where, several = _sharding(state), state.step.size > 1
    return jit(over_runs(function, state), several=several, out_shardings=where, **options)


class End:
    """The program after the last step of an epoch. It also evaluates the test images.

    Both pipelines share it, so that they round equally. It compiles in the background.

    Args:
        experiment: its model predicts.
        hyper, state: examples, see `compile_device_epoch`.
        data: validation images, on the device.
        n_train: number of training images.
    """

    def __init__(
        self, experiment: Experiment, hyper: Hyper, state: TrainState, data: Data, n_train: int
    ) -> None:
        experiment = divided(experiment, mesh_of(state.step))

        def end(
            hyper: Hyper, state: TrainState, images: jax.Array, labels: jax.Array
        ) -> tuple[TrainState, Metrics, jax.Array]:
            logits = core.predict(experiment, state, images)
            return *core.end_epoch(experiment, hyper, n_train, state, logits, labels), logits

        jitted = jit_over_runs(end, state)
        self._images, self._labels = data.val_images, data.val_labels
        self.program = compile_in_background(jitted, hyper, state, self._images, self._labels)

    def finish(self, hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        """Validate, summarise the epoch, and reset its sums."""
        new, metrics, _ = self.program.result()(hyper, state, self._images, self._labels)
        return new, metrics

    def predict(self, hyper: Hyper, state: TrainState, images: np.ndarray) -> np.ndarray:
        """See `CompiledEpoch.predict`. A call takes as many images as validation has."""
        n, size, logits = len(images), len(self._labels), []
        for first in range(0, n, size):
            # Repeats of the last image fill the last call.
            rows = images[np.minimum(np.arange(first, first + size), n - 1)]
            rows = on_all(rows, mesh_of(state.step))
            logits.append(np.asarray(self.program.result()(hyper, state, rows, self._labels)[2]))
        return np.concatenate(logits, axis=-2)[..., :n, :]


def compile_in_background(jitted: Any, *examples: Any) -> Background[Any]:
    """Trace and lower a function, and compile it in the background: XLA releases Python's lock."""
    return Background(jitted.lower(*examples).compile)


def _bounds(mesh: Any, *values: int) -> Any:
    """Put `start` and `stop` of `train_steps` on all devices."""
    return on_all([np.int32(value) for value in values], mesh)


def trace_steps(experiment: Experiment, hyper: Hyper, state: TrainState, data: Data) -> Any:
    """Trace the program of an epoch's full batches, see `compile_device_epoch`."""
    mesh = mesh_of(state.step)
    experiment = divided(experiment, mesh)

    def steps(
        hyper: Hyper, state: TrainState, data: Data, start: jax.Array, stop: jax.Array
    ) -> TrainState:
        return core.train_steps(experiment, hyper, data, state, start, stop)

    return jit_over_runs(steps, state).trace(hyper, state, data, *_bounds(mesh, 0, 1))


def compile_device_epoch(
    experiment: Experiment, hyper: Hyper, state: TrainState, data: Data, steps: Any = None
) -> CompiledEpoch:
    """Compile an epoch over images on the device.

    Args:
        hyper, state: examples with the shapes of one run or of `stack_runs`, placed as `spread` or
            `on_all` place them. They stay so.
        data: training and validation images.
        steps: of `trace_steps`; None traces them.

    Raises:
        TooManyRuns: the device has too little memory for all, but enough for fewer.
    """
    n, mesh = len(data.train_labels), mesh_of(state.step)
    full = n // experiment.batch_size
    some_steps: Any = None
    if full:
        steps = steps or trace_steps(experiment, hyper, state, data)
        some_steps = Background(steps.lower().compile)
    experiment = divided(experiment, mesh)

    def last(hyper: Hyper, state: TrainState, data: Data) -> TrainState:
        return core.train_last(experiment, hyper, data, state)

    last_step: Any = None
    if n % experiment.batch_size:
        last_step = compile_in_background(jit_over_runs(last, state), hyper, state, data)
    end = End(experiment, hyper, state, data, n)
    compiled = [program.result() for program in (some_steps, last_step, end.program) if program]
    device = next(iter(data.val_images.sharding.addressable_devices))
    check_memory(compiled, state.step.size, data, device, mesh.shape[RUNS] if mesh else 1)

    def advance(hyper: Hyper, state: TrainState, start: int, stop: int) -> TrainState:
        new: TrainState = some_steps.result()(hyper, state, data, *_bounds(mesh, start, stop))
        return new

    def finish(hyper: Hyper, state: TrainState) -> tuple[TrainState, Metrics]:
        return end.finish(hyper, last_step.result()(hyper, state, data) if last_step else state)

    return CompiledEpoch(full, experiment.steps_per_epoch(n), advance, finish, end.predict)
