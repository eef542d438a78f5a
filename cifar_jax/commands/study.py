"""The command `study`: train every arm with every seed, then write statistics and report."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Unpack

import jax
from jax.sharding import Mesh
from msgspec import structs

from cifar_jax.commands.study_checks import check_arms
from cifar_jax.commands.study_groups import Work, train_groups
from cifar_jax.commands.train import open_data
from cifar_jax.config import tables
from cifar_jax.config.combinations import check_all
from cifar_jax.config.settings import Config
from cifar_jax.device import local_devices
from cifar_jax.errors import UserError, counted, listed
from cifar_jax.runner.console import Display
from cifar_jax.runner.devices import check_batch, data_mesh, describe, mesh_of, runs_mesh
from cifar_jax.runner.directory import check_workdir, lock_directory
from cifar_jax.runner.hooks import Interrupted
from cifar_jax.runner.locate import remove_finished_groups
from cifar_jax.runner.memory import TooManyRuns
from cifar_jax.runner.prepare import Prepared
from cifar_jax.runner.remaining import Planned, Remaining
from cifar_jax.runner.session import Options, Session
from cifar_jax.storage import WRITING
from cifar_jax.study.collect import read_study
from cifar_jax.study.comparable import others_computed_on
from cifar_jax.study.definition import NO_FILE, Given, build, study_arms
from cifar_jax.study.directory import Cell, begin_study, check_sources, unfinished
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.file_checks import unshared_draws
from cifar_jax.study.grid import NORM_LABELS, Arm, Sweep, grid, parse_sweep
from cifar_jax.study.record import Plan, PlanArm, run_path
from cifar_jax.study.schedule import (
    ALONE,
    Group,
    Spread,
    plan_groups,
    seed_parallelism,
    study_seeds,
)
from cifar_jax.study.values import set_values

# Seconds that the report of a study takes on a slow machine, for the estimate of the time left.
DRAWING = 5.0
# Seconds that a share waits for the others to begin, or to write the report.
LONGEST_BEGIN = 600.0
_MOST_NAMED = 5  # arms that the first line names


def study_run(
    config: Config,
    *,
    given: Given = NO_FILE,
    seeds: tuple[int, ...] | None = None,
    workdir: Path | None = None,
    display: Display | None = None,
    spread: Spread = ALONE,
    **options: Unpack[Options],
) -> list[str]:
    """Train the remaining runs of a study, then write its report.

    Args:
        config: of the study. A run's config differs only in arm, seed and swept setting.
        given: the experiment file with the arms, if any.
        seeds: of the study. None: `study.seeds` seeds, counted up from `training.seed`.
        workdir: the study's directory, by default `runs/study-<dataset>-<model>`. A sweep appends
            `-<setting>`.
        display: shows progress.
        spread: over devices and processes.
        options: see `Session`. A study always resumes.

    Returns:
        One line for each run that failed. In a sweep, a diverged run is a result, not a failure.

    Raises:
        UserError: wrong input, before anything is written.
        Interrupted: a signal stopped it; finished runs and checkpoints are kept.
    """
    display = display or Display()
    file = given.file
    named, sweep = study_arms(config, given), parse_sweep(config)
    if file is not None:  # Its sizes are no defaults to fit to the data.
        first = named[0].config(config, config.training.seed)
        config = dataclasses.replace(config, training=first.training)
    seeds = seeds or study_seeds(config)
    arms = grid(named, sweep)
    group_size, mesh = _devices(config, len(arms) * len(spread.own(seeds)), spread)
    check_all([arm.config(config, 0).training for arm in arms])
    if sweep:  # No run uses the value in the config, so it need not fit the data.
        config = set_values(config, sweep.field, sweep.values[0])
    sizes = [arm.config(config, 0).data.train_examples for arm in arms]
    prepared = open_data(config, display, sizes, file.dataset if file else None, mesh)
    check_batch(mesh, prepared.config.training.batch_size)
    check_arms(arms, prepared, file)
    workdir = workdir or _default_workdir(prepared, sweep)
    check_workdir(workdir, resume=True)
    check_sources(workdir, arms, seeds, prepared)
    requested = Plan(
        arms=tuple(
            PlanArm(a.name, NORM_LABELS.get(a.name, a.name), dict(a.settings)) for a in named
        ),
        seeds=seeds,
        config=tables.to_dict(prepared.config),
        dataset=prepared.record(),
        sweep=sweep,
    )
    work = Work(workdir, prepared, file, group_size, options, display, given.demo, spread)
    if spread.parts > 1:
        return _run_share(work, requested)
    with lock_directory(workdir):
        _remove_unfinished(workdir)
        _begin(work, requested)
        failed = _run(work, requested)
        if config.study.half_width is None:
            return failed
        loaded = dataclasses.replace(prepared, seconds=0.0)  # The first stage has counted it.
        work = dataclasses.replace(work, prepared=loaded)
        return failed + _second_stage(work, requested, config.study.half_width)


def _devices(config: Config, runs: int, spread: Spread) -> tuple[int, Mesh | None]:
    """Return how many runs train together, and the devices if there are several.

    Args:
        runs: of the study.
        spread: over devices and processes. A task of an engine has one device.
    """
    devices = local_devices()
    if spread.data_parallel > 1:
        if spread.engine:
            raise UserError(f"--engine {spread.engine}: cannot be combined with --data-parallel")
        if seed_parallelism(config, "cpu") > 1:
            raise UserError("--seed-parallelism: must be 1 with --data-parallel")
        return 1, data_mesh(spread.data_parallel)
    if config.data.pipeline == "stream" or spread.engine:
        return min(runs, seed_parallelism(config, devices[0].platform)), None
    size = min(runs, seed_parallelism(config, devices[0].platform, len(devices)))
    return size, runs_mesh(size)


def _run_share(work: Work, requested: Plan) -> list[str]:
    """Train a share of a study. The process that ends the last run of all writes the report."""
    part, parts = work.spread.part, work.spread.parts
    if parts > len(requested.seeds) or work.prepared.config.study.half_width:
        raise UserError(
            f"--share {part}/{parts}: needs at least {parts} --seeds, and no --half-width"
        )
    with lock_directory(work.workdir, LONGEST_BEGIN):
        _begin(work, requested)
    failed = _train(work, requested)
    with lock_directory(work.workdir, LONGEST_BEGIN):
        arms = grid(requested.grid_arms, requested.sweep)
        left, failed_anywhere = unfinished(work.workdir, arms, requested.seeds)
        if left:
            work.display.say(f"{counted(len(left), 'run')} left to the other shares")
            return failed
        remove_finished_groups(work.workdir)
        return _write(work, requested, failed_anywhere)


def _second_stage(work: Work, plan: Plan, half_width: float) -> list[str]:
    """Add seeds to a study after its first stage, by Stein's procedure.

    Args:
        work: of the study.
        plan: of the first stage.
        half_width: wanted half-width of the interval, in points.
    """
    from cifar_jax.study.planning import next_seeds  # SciPy is slow to import.
    from cifar_jax.study.samples import pair_samples
    from cifar_jax.study.summary import compared_arms

    study = read_study(work.workdir)
    both = compared_arms(study)
    pairs = study.pairs(*both) if both else []
    gains = [100 * gain for gain in pair_samples(pairs)["test_accuracy"].values] if pairs else []
    first, stage = plan.seeds[0], len(plan.seeds)
    if len(gains) < stage:
        work.display.say(f"--half-width: needs all {stage} seed pairs of the first stage")
        return []
    total = next_seeds(gains, stage, half_width)
    work.display.say(
        f"after the first stage of {stage} seeds: an interval of ±{half_width:g} points takes "
        f"{counted(total, 'seed')}"
    )
    if total <= len(study.seeds):
        return []
    more = structs.replace(plan, seeds=tuple(range(first, first + total)))
    _begin(work, more)
    return _run(work, more)


def _begin(work: Work, requested: Plan) -> None:
    """Begin a study, see `begin_study`."""
    if work.file is None:
        begin_study(work.workdir, requested, work.display)
        return
    complete = functools.partial(_add_file, work.file, work.prepared)
    begin_study(work.workdir, requested, work.display, work.file, complete)


def _add_file(file: ExperimentFile, prepared: Prepared, plan: Plan) -> Plan:
    """Add to a plan what the experiment file says: title, labels, control arm and claims.

    Also add the random draws that an arm does not share with the control arm.

    Raises:
        UserError: the file lacks an arm of the plan.
    """
    own, order = set(plan.names), list(file.arms)
    if unknown := own.difference(order):
        raise UserError(f"{file.path}: has no arm {', '.join(sorted(unknown))}")
    arms = sorted(plan.arms, key=lambda arm: order.index(arm.name))
    control = file.control if file.control in own else arms[0].name
    first = grid(plan.grid_arms, plan.sweep)[: len(own)]  # each arm with the first swept value
    experiments = {arm.name: build(arm.config(prepared.config, 0), file)[0] for arm in first}
    shape = prepared.dataset.train_images.shape[1:]
    draws = unshared_draws(experiments, experiments[control], shape)
    return structs.replace(
        plan,
        arms=tuple(structs.replace(arm, label=file.labels[arm.name]) for arm in arms),
        title=file.title,
        control=control,
        claims=tuple(claim for claim in file.claims if {claim.arm, claim.than} <= own),
        unshared={name: tuple(lines) for name, lines in draws.items()},
    )


def _remove_unfinished(workdir: Path) -> None:
    """Remove the files that killed processes left in the directories of finished runs."""
    for directory in {path.parent for path in workdir.glob(f"*/seed*/{WRITING}*")}:
        with contextlib.suppress(UserError), lock_directory(directory):
            pass  # Locking removes them. A run in use removes its own.


def _run(work: Work, requested: Plan) -> list[str]:
    """Train the remaining runs of a study that has begun, and write its report."""
    return _write(work, requested, _train(work, requested))


def _write(work: Work, requested: Plan, failed: list[str]) -> list[str]:
    """Write the report of a study. Return the lines of runs that failed, but none of a sweep."""
    prepared, display = work.prepared, work.display
    total = len(grid(requested.grid_arms, requested.sweep)) * len(requested.seeds)
    if len(failed) < total:
        from cifar_jax.commands.study_report import write_study  # Matplotlib is slow to import.

        write_study(work.workdir, prepared.dataset, display, work.file, work.demo)
    if prepared.dataset.notice:
        display.banner(prepared.dataset.notice)
    return [] if requested.sweep and len(failed) < total else failed


def _train(work: Work, requested: Plan) -> list[str]:
    """Train the remaining runs of this process. Return a line for each run that failed."""
    workdir, prepared, display = work.workdir, work.prepared, work.display
    seeds, sweep = requested.seeds, requested.sweep
    arms = grid(requested.grid_arms, sweep)
    to_train, failed = unfinished(workdir, arms, seeds)
    total = len(arms) * len(seeds)
    names = requested.names
    what = listed(names) if len(names) <= _MOST_NAMED else counted(len(names), "arm")
    if sweep:
        what += f" by {counted(len(sweep.values), 'value')}"
    display.say(
        f"study of {what} on {prepared.dataset.name}: {counted(total, 'run')}, "
        f"{total - len(to_train)} finished; {workdir}"
    )
    if to_train and (mesh := mesh_of(prepared.data.val_images)):
        display.say(describe(mesh, prepared.data))
    _warn_if_computed_elsewhere(workdir, prepared, arms, to_train, display)

    def program(arm: Arm) -> Hashable:
        """Return a value that is equal for arms with the same compiled program."""
        config = arm.config(prepared.config, 0)
        experiment, hyper = build(config, work.file)
        return experiment, jax.tree.structure(hyper), config.data

    own = work.spread.own(seeds)
    to_train = {(arm, seed): at for (arm, seed), at in to_train.items() if seed in own}
    groups = plan_groups(arms, own, work.group_size, to_train, program)
    planned = [_planned(prepared.config, group, program(group.runs[0][0])) for group in groups]
    remaining = Remaining(planned, prepared.evaluation, DRAWING)
    try:
        if work.spread.engine:
            from cifar_jax.commands import ray_engine  # It imports Ray.

            failed += ray_engine.train_groups(work, groups)
        else:
            failed += train_groups(work, groups, remaining)
    except TooManyRuns as error:
        if prepared.config.study.seed_parallelism != "auto" or not error.fits:
            raise
        display.say(f"{error}, so {error.fits} train together")
        return _train(dataclasses.replace(work, group_size=error.fits), requested)
    except Interrupted as stop:
        raise Interrupted(f"{stop} Resume with the same command.", stop.status) from None
    return failed


def _warn_if_computed_elsewhere(
    workdir: Path,
    prepared: Prepared,
    arms: Sequence[Arm],
    to_train: Collection[Cell],
    display: Display,
) -> None:
    """Warn if finished runs have another device or other versions than the runs to train.

    Only seeds with a run to train count: the report compares runs of the same seed.
    """
    present = Session(prepared, display).computing
    cells = itertools.product(arms, {seed for _, seed in to_train})
    finished = [
        run_path(workdir, arm.directory, seed) for arm, seed in cells if (arm, seed) not in to_train
    ]
    if others := others_computed_on(finished, present):
        display.say(
            f"warning: finished runs of the same seeds were computed on {' | '.join(others)}; the "
            f"remaining runs will be computed on {present}, and the report will say so"
        )


def _planned(config: Config, group: Group, program: Hashable) -> Planned:
    """Return what the estimate of the time left needs of a group."""
    epochs = group.runs[0][0].config(config, 0).training.epochs
    return Planned((program, len(group.runs)), len(group.runs), epochs)


def _default_workdir(prepared: Prepared, sweep: Sweep | None) -> Path:
    config = prepared.config
    prefix = f"{config.name}-" if config.name else ""
    suffix = f"-{sweep.name}" if sweep else ""
    model = "" if sweep and sweep.field == "model.name" else f"-{config.model.name}"
    if config.experiment.file is not None:
        model = f"-{Path(config.experiment.file).stem}"
    return Path("runs") / f"{prefix}study-{prepared.dataset.name}{model}{suffix}"
