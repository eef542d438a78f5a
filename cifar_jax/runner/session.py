"""What the groups of runs of one command share: data, compiled programs, options."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypedDict

import jax
from jax.sharding import Mesh

from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState
from cifar_jax.kernels import has_slow_layers, slow_layers
from cifar_jax.runner import provenance
from cifar_jax.runner.background import Background
from cifar_jax.runner.console import Display
from cifar_jax.runner.devices import describe_division, mesh_of
from cifar_jax.runner.prepare import Prepared
from cifar_jax.runner.programs import CompiledEpoch, compile_device_epoch, trace_steps
from cifar_jax.runner.signals import GRACE
from cifar_jax.runner.streamed import TOGETHER, compile_stream_epoch
from cifar_jax.runner.writer import CHECKPOINT_EVERY

# By experiment, number of runs and structure of their hyper-parameters.
Programs = dict[tuple[Experiment, int, Any], Background[CompiledEpoch]]


class Options(TypedDict, total=False):
    """How runs are trained, besides their settings. See `Session`."""

    resume: bool
    debug_nans: bool
    grace: float
    checkpoint_every: float


@dataclass(frozen=True)
class Session:
    """Data, programs and options that all groups of a command share.

    Attributes:
        prepared: the data.
        display: shows progress.
        programs: compiled so far, or being compiled.
        resume: whether runs resume from their newest checkpoints.
        debug_nans: whether to find the operation at which a run diverges; for single runs.
        grace: seconds that running steps may take after SIGTERM.
        checkpoint_every: seconds between two checkpoints, see `hooks.Saves`.
        data_seconds: each run's share of the time that loading the images took.
    """

    prepared: Prepared
    display: Display
    programs: Programs = field(default_factory=dict)
    resume: bool = True
    debug_nans: bool = False
    grace: float = GRACE
    checkpoint_every: float = CHECKPOINT_EVERY
    data_seconds: float = 0.0

    @property
    def device(self) -> jax.Device:
        """The device that trains, or the first of several."""
        own: Any = self.prepared.data.val_images.sharding.addressable_devices
        return min(own, key=lambda device: device.id)

    @property
    def mesh(self) -> Mesh | None:
        """The devices that train together; None if one trains."""
        return mesh_of(self.prepared.data.val_images)

    @property
    def computing(self) -> str:
        """The devices and versions in words, see `provenance.describe_computing`."""
        found = provenance.describe_computing(self.device.device_kind, self.device.platform)
        return ", ".join(filter(None, [found, describe_division(self.mesh)]))


def compiled_epoch(
    session: Session, experiment: Experiment, hyper: Hyper, state: TrainState
) -> Background[CompiledEpoch]:
    """Return the compiled epoch of an experiment. If the session lacks it, begin to compile it.

    Args:
        session: keeps the program.
        experiment: to compile.
        hyper, state: examples with a leading axis of runs; their shapes count.
    """
    known = session.programs
    key = experiment, len(state.step), jax.tree.structure(hyper)
    if key not in known:
        known[key] = Background(lambda: _compile_epoch(session, experiment, hyper, state))
    return known[key]


def _compile_epoch(
    session: Session, experiment: Experiment, hyper: Hyper, state: TrainState
) -> CompiledEpoch:
    """Compile an epoch. A single run with layers that are slow in a loop gets one step a call."""
    prepared, image_shape = session.prepared, session.prepared.dataset.train_images.shape[1:]
    stream, steps = prepared.config.data.pipeline == "stream", None
    if not stream:
        steps = trace_steps(experiment, hyper, state, prepared.data)
    slow = []
    # Most traced steps have no operation of a slow layer. Then the model is not traced again.
    if len(state.step) == 1 and (steps is None or has_slow_layers(steps.jaxpr)):
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state)
        slow = slow_layers(experiment, one, image_shape)
    if stream or slow:
        together = 1 if slow else TOGETHER
        program = compile_stream_epoch(
            experiment, hyper, state, prepared.host, prepared.data, together
        )
    else:
        program = compile_device_epoch(experiment, hyper, state, prepared.data, steps)
    return dataclasses.replace(program, slow_layers=tuple(slow))
