"""Train the groups of a study, one after the other."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_jax.config.settings import DataConfig
from cifar_jax.errors import MachineError, UserError
from cifar_jax.names import STUDY
from cifar_jax.runner.console import Display
from cifar_jax.runner.devices import mesh_of
from cifar_jax.runner.directory import lock_directory
from cifar_jax.runner.group import Run
from cifar_jax.runner.locate import remove_finished_groups
from cifar_jax.runner.memory import TooManyRuns
from cifar_jax.runner.prepare import Prepared, split_dataset
from cifar_jax.runner.remaining import Remaining
from cifar_jax.runner.results import Finished
from cifar_jax.runner.session import Options, Session
from cifar_jax.runner.training import compile_ahead, train_group
from cifar_jax.study.collect import divergence_line
from cifar_jax.study.definition import make_run
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.record import run_path
from cifar_jax.study.schedule import ALONE, Group, Spread

Sessions = Callable[[DataConfig], Session]


@dataclass(frozen=True)
class Work:
    """What all groups of a study share.

    Attributes:
        workdir: the study's directory, locked unless other processes train shares.
        prepared: its data.
        file: its experiment file, or None.
        group_size: largest number of runs to train together.
        spread: over devices and processes.
        options: see `Session`.
        display: shows progress.
        demo: whether the page has the networks.
    """

    workdir: Path
    prepared: Prepared
    file: ExperimentFile | None
    group_size: int
    options: Options
    display: Display
    demo: bool
    spread: Spread = ALONE


def _sessions(work: Work, runs: int) -> Sessions:
    """Return a function that makes one session for each `[data]` table, and reuses it.

    Args:
        work: of the study.
        runs: to train; they share the time of loading.
    """
    prepared, seconds = work.prepared, work.prepared.seconds / max(1, runs)

    @functools.cache
    def session(data: DataConfig) -> Session:
        found = prepared
        if data != prepared.config.data:
            config = dataclasses.replace(prepared.config, data=data)
            found = split_dataset(config, prepared.dataset, mesh_of(prepared.data.val_images))
        return Session(found, work.display, data_seconds=seconds, **work.options)

    return session


def train_groups(work: Work, groups: Sequence[Group], left: Remaining) -> list[str]:
    """Train groups one after the other. Return a line for each run that failed."""
    sessions = _sessions(work, sum(len(group.runs) for group in groups))
    failed = []
    for number in range(len(groups)):
        if not (work.workdir / STUDY).exists():
            raise MachineError(f"{work.workdir}: was moved or removed while the study ran")
        failed += _train_group(work, groups[number:], left, sessions)
        if work.spread.parts == 1:  # A group of another process may have no checkpoint yet.
            remove_finished_groups(work.workdir)
    return failed


def _data_of(work: Work, group: Group) -> DataConfig:
    """Return the `[data]` table of a group's runs."""
    arm, seed = group.runs[0]
    return arm.config(work.prepared.config, seed).data


def _runs_of(work: Work, group: Group) -> list[Run]:
    """Return the runs of a group."""
    return [
        make_run(
            arm.config(work.prepared.config, seed),
            work.file,
            run_path(work.workdir, arm.directory, seed),
            label,
        )
        for (arm, seed), label in zip(group.runs, group.labels, strict=True)
    ]


def _train_group(
    work: Work, groups: Sequence[Group], left: Remaining, sessions: Sessions
) -> list[str]:
    """Train the first of some groups. Return a line for each run that failed."""
    group, *later = groups
    paths = [run_path(work.workdir, arm.directory, seed) for arm, seed in group.runs]
    session = sessions(_data_of(work, group))
    display = session.display

    def compile_next() -> None:
        if later:
            session, runs = sessions(_data_of(work, later[0])), _runs_of(work, later[0])
            if compile_ahead(session, runs):
                left.ahead()

    try:
        with contextlib.ExitStack() as stack:
            for path in paths:
                stack.enter_context(lock_directory(path))
            outcomes = train_group(session, _runs_of(work, group), left, compile_next)
    except (MachineError, TooManyRuns):  # The other runs would fail too.
        raise
    except UserError as error:  # For example a damaged checkpoint. Train the other runs.
        display.say(str(error))
        return [str(error)]
    failed = []
    for path, label, outcome in zip(paths, group.labels, outcomes, strict=True):
        if isinstance(outcome, Finished):
            display.say(f"{label}: test accuracy {100 * outcome.test_accuracy:.2f} %")
        else:
            failed.append(divergence_line(outcome.diverged, path))
            display.say(f"{label}: {failed[-1]}")
    return failed
