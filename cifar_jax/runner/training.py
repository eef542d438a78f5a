"""Train a group of runs: start or resume, compile, train, evaluate, write the results."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from msgspec import structs

from cifar_jax import libraries
from cifar_jax.config import tables
from cifar_jax.config.checks import check_batches
from cifar_jax.core.optim import Hyper
from cifar_jax.errors import UserError, counted
from cifar_jax.names import CHECKPOINTS, CONFIG, METRICS
from cifar_jax.runner import provenance
from cifar_jax.runner.background import Background
from cifar_jax.runner.boundaries import Boundary, boundaries
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.devices import spread
from cifar_jax.runner.directory import holds_run, make_directory
from cifar_jax.runner.ending import evaluate, finish, report_divergence
from cifar_jax.runner.follow import follow
from cifar_jax.runner.group import Divergence, Group, Run, from_rows, position_of
from cifar_jax.runner.hooks import (
    Bar,
    Divergences,
    Hook,
    Interrupted,
    Lines,
    Rows,
    Saves,
    Stops,
    TensorBoard,
)
from cifar_jax.runner.locate import locate, new_group, study_of
from cifar_jax.runner.processes import is_first
from cifar_jax.runner.programs import CompiledEpoch, first_shapes, stack_runs
from cifar_jax.runner.remaining import Planned, Remaining
from cifar_jax.runner.results import Results, Spent, Training
from cifar_jax.runner.resume import Start
from cifar_jax.runner.session import Session, compiled_epoch
from cifar_jax.runner.signals import Interrupts, Terminated, exit_status, in_thread
from cifar_jax.runner.starts import find_starts, say_starts
from cifar_jax.runner.writer import Writer
from cifar_jax.storage import json_lines, write_text


def compile_ahead(session: Session, runs: Sequence[Run]) -> bool:
    """Begin to compile the program of a group that trains later. Return whether it was begun.

    On a CPU it would take its cores from the group that trains now.
    """
    if session.device.platform == "cpu":
        return False
    _begin_to_compile(session, runs)
    return True


def _begin_to_compile(
    session: Session, runs: Sequence[Run]
) -> tuple[Hyper, Background[CompiledEpoch]]:
    """Return the stacked hyper-parameters of a group, and its program, which compiles."""
    prepared, experiment = session.prepared, runs[0].experiment
    shape, images = prepared.dataset.train_images.shape[1:], experiment.init_images
    state = first_shapes(experiment, shape, prepared.first_images(images), len(runs))
    hyper = spread(jax.device_put(stack_runs([run.hyper for run in runs])), session.mesh)
    return hyper, compiled_epoch(session, experiment, hyper, spread(state, session.mesh))


def estimate(session: Session, runs: Sequence[Run], drawing: float = 0.0) -> Remaining:
    """Return the estimate of the time left of a single group, with seconds of drawing."""
    only = Planned(None, len(runs), runs[0].config.training.epochs)
    return Remaining([only], session.prepared.evaluation, drawing)


def train_group(
    session: Session,
    runs: Sequence[Run],
    remaining: Remaining | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Results]:
    """Train runs together as one program, and write the files of each.

    They take the same time together, so `seconds` of an epoch is its time divided by their number.

    Args:
        runs: with the same experiment and data. When they resume, all are at the same step.
        remaining: estimates the time left of the command; None if this is its only group.
        meanwhile: called when the program is compiled, before the first step.

    Returns:
        The results of each run.

    Raises:
        UserError: wrong input, before anything is written.
        Interrupted: after a signal; the message says what is saved.
    """
    check_batches(runs[0].config, len(session.prepared.train_rows))
    if remaining is None:
        remaining = estimate(session, runs)
    remaining.begin()
    begun = time.perf_counter()
    compiling = _begin_to_compile(session, runs)
    starts = find_starts(session, runs)  # XLA compiles both at once.
    say_starts(session, runs, starts)
    group = _compile(session, runs, starts, compiling, begun)
    meanwhile()
    if not is_first():
        return follow(session, group, remaining.later)
    fresh = [not holds_run(run.workdir) for run in runs]  # An interrupt may remove these.
    written: dict[int, Results] = {}
    try:
        with _create_files(group) as checkpoints, Writer() as writer:
            saves = Saves(checkpoints, writer, group, session.checkpoint_every)
            _train(session, group, saves, remaining, written)
            if group.alive:
                logits, seconds = evaluate(session, group, saves)
            for i in group.alive:
                written[i] = finish(session, group, i, logits[i], seconds)
    except KeyboardInterrupt as stop:
        raise _discard(runs, fresh, stop) from None
    finally:
        session.display.end_progress()
    return [written[i] for i in range(len(runs))]


def _compile(
    session: Session,
    runs: Sequence[Run],
    starts: Sequence[Start],
    compiling: tuple[Hyper, Background[CompiledEpoch]],
    begun: float,
) -> Group:
    """Wait for the program of a group, and return the group at its start.

    `compiling` is the result of `_begin_to_compile`. It was called at `begun`, by
    `time.perf_counter`.
    """
    state = spread(stack_runs([start.state for start in starts]), session.mesh)
    hyper, compiled_program = compiling
    waiting = time.perf_counter()
    # In a thread, so that a signal does not wait for the compiler.
    program = in_thread(compiled_program.result)
    ended = time.perf_counter()
    waited, share = ended - waiting, (ended - begun) / len(runs)
    if program.slow_layers:
        session.display.say(
            "each step is a call of its own, since these are slow in a loop on a CPU: "
            f"{', '.join(program.slow_layers[:3])}{', ...' * (len(program.slow_layers) > 3)}"
        )
    records = [
        Training(
            config=tables.to_dict(run.config),
            dataset=session.prepared.record(),
            compile_seconds=start.compile_seconds + waited,
            computed_on=tuple(dict.fromkeys([*start.computed_on, session.computing])),
            history=(),
            init_from=start.origin,
            described=run.described,
            spent=_spent(session, start, share),
        )
        for run, start in zip(runs, starts, strict=True)
    ]
    history = np.stack([from_rows(start.history) for start in starts])
    unfinished = starts[0].unfinished
    seconds = unfinished.seconds * len(runs) if unfinished else 0.0
    steps = resumed_steps(starts, program)
    at = Boundary(state, history.shape[1] + 1, steps, seconds)
    n_train = len(session.prepared.train_rows)
    group = Group(tuple(runs), tuple(records), program, hyper, n_train, at, history)
    session.display.say(f"compiled in {waited:.1f} s; run directory: {group.directory}")
    return group


def _spent(session: Session, start: Start, compiling: float) -> Spent | None:
    """Return where the time of a run went before its first step."""
    if start.spent is None:
        return None
    return structs.replace(
        start.spent,
        data=start.spent.data + session.data_seconds,
        compiling=start.spent.compiling + compiling,
    )


def resumed_steps(starts: Sequence[Start], program: CompiledEpoch) -> int:
    """Return the number of finished steps of the next epoch, the same for all runs of a group.

    Raises:
        UserError: that number does not fit the steps of an epoch.
    """
    steps = {start.unfinished.steps if start.unfinished else 0 for start in starts}
    if len(steps) > 1:
        raise ValueError("runs that train together must be at the same step")
    (done,) = steps
    whole = {len(start.history) * program.steps + done for start in starts}
    if done > program.full or {int(start.state.step) for start in starts} != whole:
        raise UserError(
            f"--resume: the newest checkpoint does not fit: it is after {counted(done, 'step')} of "
            f"an epoch, and an epoch has {counted(program.full, 'full batch')}"
        )
    return done


@contextlib.contextmanager
def _create_files(group: Group) -> Iterator[Checkpoints]:
    """Write config and history of each run as at its start. Open the group's checkpoints."""
    for i, run in enumerate(group.runs):
        make_directory(run.workdir)
        write_text(run.workdir / CONFIG, tables.to_toml(run.config))
        write_text(run.workdir / METRICS, json_lines(map(structs.asdict, group.rows(i))))
    first = group.runs[0].workdir
    several = len(group.runs) > 1
    directory = new_group(study_of(first)) if several else first / CHECKPOINTS
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        checkpoints.rename_damaged()
        yield checkpoints


def _train(
    session: Session,
    group: Group,
    saves: Saves,
    remaining: Remaining,
    written: dict[int, Results],
) -> None:
    """Train a group to its last epoch. Add the results of runs that diverge to `written`."""
    display, begun = session.display, time.perf_counter()
    remaining.train(group.last - group.at.epoch + 1 - group.at.steps / (group.program.full + 1))

    def on_divergence(i: int, found: Divergence, before: Boundary) -> None:
        # Save the last whole epoch: `--resume --debug-nans` replays from there.
        if position_of(before).epoch and not position_of(before).steps:
            saves.save_runs(group, [i], before)
            saves.wait()
        written[i] = report_divergence(session, group, i, found, before)

    def on_signal(stop: KeyboardInterrupt) -> None:
        if isinstance(stop, Terminated):
            how = f"for at most {session.grace:g} s, and saving a checkpoint."
            display.say(f"SIGTERM: finishing the current steps, {how}")
        else:
            how = "Press Ctrl-C again to stop now without saving."
            display.say(f"Interrupted: finishing the current steps, and saving. {how}")

    interrupts = Interrupts(on_signal, session.grace)
    stops = Stops(interrupts, saves, remaining.later)
    bar = Bar(display)
    bar(group)
    in_study = bool(group.runs[0].label)

    def prepare_end() -> None:
        """Do early what the end of training would wait for. An error is raised there again."""
        libraries.import_late(in_study)
        provenance.versions()
        provenance.git_revision()

    preparing = Background(prepare_end)  # While the first steps run.
    tensorboard = TensorBoard(group, lambda: preparing.done)
    with contextlib.closing(tensorboard), interrupts:
        # `stops` is last, because it ends training by an exception.
        hooks: list[Hook] = [
            Divergences(on_divergence, group),
            saves,
            Rows(),
            tensorboard,
            Lines(display, remaining),
            bar,
            stops,
        ]
        group.outside = time.perf_counter() - begun
        try:
            for at in interrupts.each(boundaries(group.program, group.hyper, group.at, group.last)):
                begun = time.perf_counter()
                group.advance(at)
                for hook in hooks:
                    hook(group)
                group.outside += time.perf_counter() - begun
                if not group.alive:
                    break
        except Terminated:  # The grace period is over.
            raise stops.stop(group) from None
    remaining.end()


def _discard(runs: Sequence[Run], fresh: Sequence[bool], stop: KeyboardInterrupt) -> Interrupted:
    """Remove the directories of runs without a checkpoint. Return the exception to raise."""
    kept = [run.workdir for run in runs if locate(run.workdir) is not None]
    for run, new in zip(runs, fresh, strict=True):
        if new and run.workdir not in kept:
            shutil.rmtree(run.workdir, ignore_errors=True)
    if kept:
        message = f"Stopped; {kept[0]} keeps the newest checkpoint; later steps are lost."
    else:
        message = "Stopped before the first checkpoint; nothing is saved."
    return Interrupted(message, exit_status(stop))
