"""Find a run's checkpoints: in its own directory, or in that of its group.

Runs that train together share checkpoints, in a directory such as `groups/1` of their study. There,
a run's name is the last two parts of its directory, such as `batch/seed42`. A finished run has its
own checkpoint.
"""

import contextlib
import itertools
import shutil
from pathlib import Path
from typing import NamedTuple

from cifar_jax.errors import UserError
from cifar_jax.inputs import read_json
from cifar_jax.names import CHECKPOINTS, GROUPS, RESULTS
from cifar_jax.runner.checkpoint_files import (
    Position,
    metadata_path,
    newest_intact,
    saved_positions,
)
from cifar_jax.runner.results import Damaged, GroupRecord, validate


class Location(NamedTuple):
    """A directory of checkpoints, and a run's index in its group."""

    directory: Path
    run: int = 0


def run_name(workdir: Path) -> str:
    """Return the name of a run in the record of its group, such as `batch/seed42`."""
    return "/".join(workdir.absolute().parts[-2:])


def study_of(workdir: Path) -> Path:
    """Return the directory of the study that a run would belong to."""
    return workdir.absolute().parent.parent


def _members(directory: Path) -> list[str]:
    """Return the names of the runs whose checkpoints are in a directory."""
    for position in saved_positions(directory):
        path = metadata_path(directory / str(position))
        with contextlib.suppress(OSError, ValueError, Damaged):
            record: GroupRecord = validate(read_json(path), GroupRecord, path)
            return [run.name for run in record.runs]
    return []


def locate(workdir: Path) -> Location | None:
    """Return the location of a run's newest checkpoint, or None."""
    found = [Location(workdir / CHECKPOINTS)] if saved_positions(workdir / CHECKPOINTS) else []
    name = run_name(workdir)
    for directory in sorted((study_of(workdir) / GROUPS).glob("[0-9]*")):
        members = _members(directory)
        if name in members:
            found.append(Location(directory, members.index(name)))
    return max(found, key=lambda at: newest_intact(at.directory) or Position(-1), default=None)


def newest_position(workdir: Path) -> Position:
    """Return the position of a run's newest undamaged checkpoint, or (0, 0)."""
    found = locate(workdir)
    return (newest_intact(found.directory) if found else None) or Position(0)


def new_group(study: Path) -> Path:
    """Make the directory of a new group. No other process gets the same."""
    numbers = [int(p.name) for p in (study / GROUPS).glob("[0-9]*") if p.name.isdecimal()]
    for number in itertools.count(max(numbers, default=0) + 1):
        with contextlib.suppress(FileExistsError):
            (study / GROUPS / str(number)).mkdir(parents=True)
            break
    return study / GROUPS / str(number)


def remove_finished_groups(study: Path) -> None:
    """Remove the checkpoints of groups whose runs all have results."""
    for directory in (study / GROUPS).glob("[0-9]*"):
        if all((study / name / RESULTS).exists() for name in _members(directory)):
            shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        (study / GROUPS).rmdir()


def find_checkpoints(path: Path, flag: str = "--checkpoint") -> Location:
    """Return the location of a run's checkpoints.

    Args:
        path: the run's directory, or the directory `checkpoints` in it.
        flag: the user's flag for the path, for the message.

    Raises:
        UserError: there is no checkpoint, or it is of several runs.
    """
    found = locate(path) or (Location(path) if saved_positions(path) else None)
    if found is None:
        raise UserError(f"{flag} {path}: holds no checkpoint of a run")
    if found.directory == path and len(_members(path)) > 1:
        raise UserError(f"{flag} {path}: holds several runs; name the directory of one")
    return found
