"""The directory of a study: which study it holds, and what of it is finished."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from cifar_jax.config.changes import SAME_EXPERIMENT, changes
from cifar_jax.errors import UserError
from cifar_jax.names import LOCK, STUDY
from cifar_jax.runner.checkpoint import Position
from cifar_jax.runner.console import Display
from cifar_jax.runner.locate import newest_position
from cifar_jax.runner.prepare import Prepared
from cifar_jax.runner.pretrained import check_source, source_path
from cifar_jax.runner.results import Diverged
from cifar_jax.runner.resume import read_recorded
from cifar_jax.study.collect import divergence_line, read_intact
from cifar_jax.study.grid import Arm, Sweep, grid, ordered
from cifar_jax.study.identity import check_origins, check_results, check_settings
from cifar_jax.study.record import LostPlan, Plan, find_plan, run_path, write_plan

Cell = tuple[Arm, int]


def _begun(workdir: Path) -> tuple[Plan | None, str]:
    """The study that a directory holds, None if it is empty; and a line for the user."""
    try:
        return find_plan(workdir)
    except LostPlan as lost:
        if (workdir / STUDY).exists():
            raise UserError(f"{lost}; remove it to begin anew") from None
        if any(path.name != LOCK for path in workdir.iterdir()):
            raise UserError(f"--workdir {workdir}: is not empty and holds no study") from None
        return None, ""


def _check_same(found: Plan, asked: Plan, workdir: Path, free: tuple[str, ...]) -> None:
    """Refuse another study than the one that was found.

    More epochs or other runs would be another study; more seeds, norms or values of the swept
    setting are the same one, longer.

    Args:
        found, asked: the studies.
        workdir: of both.
        free: fields that may differ too.

    Raises:
        UserError: naming what differs.
    """
    other = f"--workdir {workdir}: holds another study"
    fields = [plan.sweep.field if plan.sweep else "nothing" for plan in (found, asked)]
    if fields[0] != fields[1]:
        raise UserError(f"{other}: it sweeps {fields[0]}, not {fields[1]}")
    free = (*free, *SAME_EXPERIMENT, "study", "model.norm", *fields[0].split("+"))
    if changed := changes(found.settings, asked.settings, free):
        raise UserError(f"{other}: {'; '.join(map(str, changed))}")
    if found.dataset.fingerprint != asked.dataset.fingerprint:
        raise UserError(f"--workdir {workdir}: holds a study of other images")


def _joined(first: Plan, second: Plan) -> dict[str, Any]:
    """The arms, seeds and values of both, in the order of the first."""
    sweep = None
    if first.sweep and second.sweep:
        values = ordered([*first.sweep.values, *second.sweep.values])
        sweep = Sweep(first.sweep.field, values)
    arms = tuple(dict.fromkeys([*first.arms, *second.arms]))
    return {"arms": arms, "seeds": tuple(sorted({*first.seeds, *second.seeds})), "sweep": sweep}


def _check_runs(workdir: Path, plan: Plan) -> None:
    """Refuse a directory in which a run is not the one that the study means.

    Raises:
        UserError: naming it.
    """
    config = plan.settings
    for arm, seed in itertools.product(grid(plan.arms, plan.sweep), plan.seeds):
        path = run_path(workdir, arm.directory, seed)
        said, wanted = read_recorded(path), arm.config(config, seed)
        if said is None:
            continue
        check_settings(path, said.config, said.dataset, wanted, plan.dataset)
        if (run := read_intact(path)) is not None:
            check_results(path, run.results, wanted, plan.dataset)


def begin_study(workdir: Path, asked: Plan, display: Display) -> None:
    """Write `study.json`, unless the directory holds another study or a run of another.

    Raises:
        UserError: if it does; nothing is written.
    """
    found, warning = _begun(workdir)
    if found is not None:
        # Runs do not tell the order in which they were asked for, nor the first seed.
        _check_same(found, asked, workdir, ("training.seed",) if warning else ())
        first, second = (asked, found) if warning else (found, asked)
        asked = structs.replace(asked, **_joined(first, second))
    if warning:
        display.say(warning)
    _check_runs(workdir, asked)
    write_plan(workdir, asked)


def unfinished(
    workdir: Path, arms: Sequence[Arm], seeds: Sequence[int]
) -> tuple[dict[Cell, Position], list[str]]:
    """The newest checkpoint of each unfinished run, and a line for each run that diverged."""
    left, failed = {}, []
    for seed, arm in itertools.product(seeds, arms):
        path = run_path(workdir, arm.directory, seed)
        run = read_intact(path)
        if run is None:
            left[arm, seed] = newest_position(path)
        elif isinstance(run.results, Diverged):
            failed.append(divergence_line(run.results.diverged, path))
    return left, failed


def check_sources(
    workdir: Path, arms: Sequence[Arm], seeds: Sequence[int], prepared: Prepared
) -> None:
    """Refuse initial values that a run to begin cannot have, or that others did not have.

    Raises:
        UserError: naming them.
    """
    begun, new = [], []
    for arm, seed in itertools.product(arms, seeds):
        config = arm.config(prepared.config, seed)
        path = run_path(workdir, arm.directory, seed)
        said = read_recorded(path) if source_path(config) is not None else None
        if said is not None and said.dataset is not None:
            begun.append((path, said.config, said.origin_digest))
        else:
            new.append((path, config, check_source(config, prepared.dataset.classes)))
    check_origins([*begun, *new])
