"""Find where the runs of a group start: at a checkpoint, or with initial values. Say so."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.runner import pretrained, provenance
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.console import Display
from cifar_jax.runner.devices import describe
from cifar_jax.runner.ending import count_parameters
from cifar_jax.runner.group import Run
from cifar_jax.runner.processes import of_any, of_first
from cifar_jax.runner.programs import first_state
from cifar_jax.runner.results import Origin
from cifar_jax.runner.resume import Start, progress_text, resume_run
from cifar_jax.runner.session import Session


def find_starts(session: Session, runs: Sequence[Run]) -> list[Start]:
    """Return the start of each run. All processes must call it.

    Raises:
        UserError: a checkpoint or a source of initial values does not fit, or the processes see
            different checkpoints.
    """
    with contextlib.ExitStack() as stack:

        @functools.cache
        def open_checkpoints(directory: Path) -> Checkpoints:
            return stack.enter_context(contextlib.closing(Checkpoints(directory, create=False)))

        starts = [_start(session, run, open_checkpoints) for run in runs]
    steps = int(starts[0].state.step)
    if of_any(of_first(steps) != steps):
        raise UserError(
            f"--workdir {runs[0].workdir}: the processes see different checkpoints in it; give a "
            "directory that all of them share"
        )
    return starts


def _start(session: Session, run: Run, open_checkpoints: Callable[[Path], Checkpoints]) -> Start:
    """Return the start of a run: its newest checkpoint, or new initial values."""
    dataset, config = session.prepared.dataset, run.config
    shape, seen = dataset.train_images.shape[1:], run.experiment.init_images
    images = session.prepared.first_images(seen)
    state = first_state(run.experiment, config.training.seed, shape, images)
    if session.resume:
        found = resume_run(state, run, dataset.fingerprint, open_checkpoints)
        if found is not None:
            return found
    source = pretrained.source_path(config)
    if source is None:
        return Start(state, (), 0.0)
    opened = pretrained.open_source(source)
    state, origin = pretrained.start_from(opened, config, state, dataset.classes)
    return Start(state, (), 0.0, origin)


def say_starts(session: Session, runs: Sequence[Run], starts: Sequence[Start]) -> None:
    """Print data, model and device, and where each run resumes."""
    prepared, display, computing = session.prepared, session.display, session.computing
    first = starts[0]
    parameters = count_parameters(first.state)
    if not runs[0].label:
        if not (first.history or first.unfinished):
            _say_origin(first.origin, display)
        display.say(
            f"{prepared.dataset.name}: {len(prepared.train_rows):,} training, "
            f"{len(prepared.val_rows):,} validation, {len(prepared.dataset.test_labels):,} test "
            f"images; {_network(runs[0])}, {parameters:,} parameters; "
            f"{provenance.describe_device(session.device.device_kind, session.device.platform)}"
        )
        if session.mesh:
            copied = prepared.data, first.state.params, first.state.opt_state
            display.say(describe(session.mesh, copied))
    for start, run in zip(starts, runs, strict=True):
        if start.damaged:
            display.say(f"{start.damaged[0]}; resuming from the one before")
        if start.history or start.unfinished:
            done = progress_text(start.history, start.unfinished)
            display.say(f"resuming {run.workdir} after {done}")
        if start.computed_on and computing != start.computed_on[-1]:
            display.say(
                f"begun on {start.computed_on[-1]}, resuming on {computing}: the last bits may "
                "differ from an uninterrupted run"
            )


def _network(run: Run) -> str:
    """Return the network of a run in words."""
    file = run.config.experiment
    if file.file is not None:
        return f"arm {file.arm} of {file.file}, {run.model_name}"
    return f"{run.model_name}, norm {run.config.model.norm}"


def _say_origin(origin: Origin | None, display: Display) -> None:
    """Print the source of the initial values, and a line for each tensor that was not taken."""
    if origin is None:
        return
    display.say(
        f"starting from {origin.source} (digest {origin.digest[:12]}): "
        f"{origin.parameters_taken:,} parameters and statistics taken"
    )
    for line in origin.left:
        display.say(f"  {line}")
