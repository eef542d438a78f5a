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
from cifar_jax.runner.results import Finished, Results
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


def sessions_of(work: Work, runs: int) -> Sessions:
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


def train_groups(work: Work, groups: Sequence[Group], remaining: Remaining) -> list[str]:
    """Train groups one after the other. Return a line for each run that failed.

    `remaining` estimates the time left of all groups.
    """
    sessions = sessions_of(work, sum(len(group.runs) for group in groups))
    failed = []
    for number in range(len(groups)):
        if not (work.workdir / STUDY).exists():
            raise MachineError(f"{work.workdir}: was moved or removed while the study ran")
        failed += _train_group(work, groups[number:], remaining, sessions)
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


def train_together(
    work: Work,
    group: Group,
    sessions: Sessions,
    remaining: Remaining | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Results]:
    """Train one group, in the locked directories of its runs; see `train_group`."""
    with contextlib.ExitStack() as stack:
        for arm, seed in group.runs:
            stack.enter_context(lock_directory(run_path(work.workdir, arm.directory, seed)))
        return train_group(
            sessions(_data_of(work, group)), _runs_of(work, group), remaining, meanwhile
        )


def say_outcomes(work: Work, group: Group, outcomes: Sequence[Results]) -> list[str]:
    """Print a line for each run of a group. Return those of runs that diverged."""
    failed = []
    for (arm, seed), label, outcome in zip(group.runs, group.labels, outcomes, strict=True):
        if isinstance(outcome, Finished):
            work.display.say(f"{label}: test accuracy {100 * outcome.test_accuracy:.2f} %")
        else:
            path = run_path(work.workdir, arm.directory, seed)
            failed.append(divergence_line(outcome.diverged, path))
            work.display.say(f"{label}: {failed[-1]}")
    return failed


def _train_group(
    work: Work, groups: Sequence[Group], remaining: Remaining, sessions: Sessions
) -> list[str]:
    """Train the first of some groups. Return a line for each run that failed.

    Meanwhile the program of the second one compiles, on an accelerator.
    """
    group, *later = groups

    def compile_next() -> None:
        if later:
            session, runs = sessions(_data_of(work, later[0])), _runs_of(work, later[0])
            if compile_ahead(session, runs):
                remaining.ahead()

    try:
        outcomes = train_together(work, group, sessions, remaining, compile_next)
    except (MachineError, TooManyRuns):  # The other runs would fail too.
        raise
    except UserError as error:  # For example a damaged checkpoint. Train the other runs.
        work.display.say(str(error))
        return [str(error)]
    return say_outcomes(work, group, outcomes)
