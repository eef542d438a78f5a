"""The directory of a study: begin or continue the study, and find its unfinished runs."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from cifar_jax.config.changes import SAME_EXPERIMENT, changes
from cifar_jax.config.settings import FILE_SETTINGS
from cifar_jax.errors import UserError
from cifar_jax.names import LOCK, SOURCE, STUDY
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.runner.console import Display
from cifar_jax.runner.locate import newest_position
from cifar_jax.runner.prepare import Prepared
from cifar_jax.runner.pretrained import check_source, source_path
from cifar_jax.runner.results import Diverged
from cifar_jax.runner.resume import read_recorded
from cifar_jax.storage import write_text
from cifar_jax.study.collect import divergence_line, read_intact
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.grid import Arm, Sweep, grid, ordered
from cifar_jax.study.identity import check_origins, check_results, check_settings
from cifar_jax.study.kept import check_unchanged
from cifar_jax.study.rebuild import find_plan
from cifar_jax.study.record import LostPlan, Plan, run_path, write_plan

# Settings that the arms of a study set.
VARIED = ("model.norm", "experiment.arm", "experiment.hyper")
# Settings that an experiment file can set for an arm.
OF_ARMS = tuple(f for f in FILE_SETTINGS if f not in ("training.seed", "training.kernels"))

Cell = tuple[Arm, int]


def _existing_plan(workdir: Path) -> tuple[Plan | None, str]:
    """Return the plan in a directory, None if it is empty, and a line for the user.

    Raises:
        UserError: the directory has other files, or a damaged `study.json` and no runs.
    """
    try:
        return find_plan(workdir)
    except LostPlan as lost:
        if (workdir / STUDY).exists():
            raise UserError(f"{lost}; remove it to begin a new study") from None
        if any(path.name != LOCK for path in workdir.iterdir()):
            raise UserError(f"--workdir {workdir}: is not empty and holds no study") from None
        return None, ""


def _check_same(found: Plan, requested: Plan, workdir: Path, free: tuple[str, ...]) -> None:
    """Check that a requested study is the one in its directory, or extends it.

    It may add seeds, arms and values of the swept setting. No other setting may change.

    Args:
        found: the plan in the directory.
        requested: the new plan.
        workdir: their directory.
        free: other fields that may differ.

    Raises:
        UserError: it is another study; the message names what differs.
    """
    other = f"--workdir {workdir}: holds another study"
    fields = [plan.sweep.field if plan.sweep else "nothing" for plan in (found, requested)]
    if fields[0] != fields[1]:
        raise UserError(f"{other}: it sweeps {fields[0]}, not {fields[1]}")
    free = (*free, *SAME_EXPERIMENT, "study", *VARIED, *fields[0].split("+"))
    if found.settings.experiment.file is not None:
        free = (*free, *OF_ARMS)
    if changed := changes(found.settings, requested.settings, free):
        raise UserError(f"{other}: {'; '.join(map(str, changed))}")
    stages = [plan.settings.study for plan in (found, requested)]
    if all(one.half_width for one in stages) and stages[0].seeds != stages[1].seeds:
        raise UserError(
            f"--seeds {stages[1].seeds}: the first stage of the study in {workdir} has "
            f"{stages[0].seeds}; give that number"
        )
    before = {arm.name: arm.config(found.settings, 0) for arm in found.grid_arms}
    swept = tuple(fields[0].split("+"))
    for arm in requested.grid_arms:
        now = arm.config(requested.settings, 0)
        if changed := changes(before.get(arm.name, now), now, (*SAME_EXPERIMENT, *swept)):
            raise UserError(f"{other}: arm {arm.name}: {'; '.join(map(str, changed))}")
    if found.dataset.fingerprint != requested.dataset.fingerprint:
        raise UserError(f"--workdir {workdir}: holds a study of other images")


def _union(first: Plan, second: Plan, requested: Plan) -> dict[str, Any]:
    """Return the arms, seeds and swept values of both plans.

    Those of `first` come first. The settings of an arm in both are those of `requested`.
    """
    sweep = None
    names = dict.fromkeys([*first.names, *second.names])
    if first.sweep and second.sweep:
        values = ordered([*first.sweep.values, *second.sweep.values])
        sweep = Sweep(first.sweep.field, values)
    known = {arm.name: arm for plan in (first, second, requested) for arm in plan.arms}
    arms = tuple(known[name] for name in names)
    return {"arms": arms, "seeds": tuple(sorted({*first.seeds, *second.seeds})), "sweep": sweep}


def _check_runs(workdir: Path, plan: Plan) -> None:
    """Check that the runs in a study's directory belong to the study.

    Raises:
        UserError: a run does not; the message names it.
    """
    config = plan.settings
    for arm, seed in itertools.product(grid(plan.grid_arms, plan.sweep), plan.seeds):
        path = run_path(workdir, arm.directory, seed)
        wanted = arm.config(config, seed)
        if (results := read_intact(path)) is not None:
            check_results(path, results, wanted, plan.dataset)
        elif (recorded := read_recorded(path)) is not None:
            check_settings(path, recorded.config, recorded.dataset, wanted, plan.dataset)


def begin_study(
    workdir: Path,
    requested: Plan,
    display: Display,
    file: ExperimentFile | None = None,
    complete: Callable[[Plan], Plan] = lambda plan: plan,
) -> None:
    """Check that a directory is free or has the same study. Write `study.json`.

    Args:
        workdir: the directory.
        requested: the study.
        display: shows a warning.
        file: its experiment file, to keep beside `study.json`.
        complete: adds what that says of all arms in the directory.

    Raises:
        UserError: it has other files, another study, or a run of one. Nothing is written.
    """
    found, warning = _existing_plan(workdir)
    if found is not None:
        if file is not None and (sha256 := found.settings.experiment.sha256) is not None:
            check_unchanged(file, sha256, workdir)
        # A plan rebuilt from runs lacks the order of the arms and the first seed.
        _check_same(found, requested, workdir, ("training.seed",) if warning else ())
        first, second = (requested, found) if warning else (found, requested)
        requested = structs.replace(requested, **_union(first, second, requested))
    requested = complete(requested)
    if warning:
        display.say(warning)
    _check_runs(workdir, requested)
    if file is not None:
        write_text(workdir / SOURCE, file.source)
    write_plan(workdir, requested)


def unfinished(
    workdir: Path, arms: Sequence[Arm], seeds: Sequence[int]
) -> tuple[dict[Cell, Position], list[str]]:
    """Find the unfinished and the diverged runs of a study.

    Returns:
        The unfinished runs with the position of their newest checkpoint, and a line for each run
        that diverged.
    """
    remaining, failed = {}, []
    for seed, arm in itertools.product(seeds, arms):
        path = run_path(workdir, arm.directory, seed)
        results = read_intact(path)
        if results is None:
            remaining[arm, seed] = newest_position(path)
        elif isinstance(results, Diverged):
            failed.append(divergence_line(results.diverged, path))
    return remaining, failed


def check_sources(
    workdir: Path, arms: Sequence[Arm], seeds: Sequence[int], prepared: Prepared
) -> None:
    """Check that the sources of initial values fit new runs, and have not changed since others.

    Raises:
        UserError: a source cannot be used, or it has changed.
    """
    begun, new = [], []
    images = prepared.dataset
    for arm, seed in itertools.product(arms, seeds):
        config = arm.config(prepared.config, seed)
        path = run_path(workdir, arm.directory, seed)
        recorded = read_recorded(path) if source_path(config) is not None else None
        if recorded is not None and recorded.dataset is not None:
            begun.append((path, recorded.config, recorded.origin_digest))
        else:
            shape = images.train_images.shape[1:]
            new.append((path, config, check_source(config, images.classes, shape)))
    check_origins([*begun, *new])
