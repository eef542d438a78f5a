"""Find the study in a directory. Rebuild its plan from its runs if `study.json` is lost."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cifar_jax.config import tables
from cifar_jax.config.settings import FILE_SETTINGS, NORMS, Config, StudyConfig
from cifar_jax.errors import UserError
from cifar_jax.runner.results import DatasetRecord
from cifar_jax.study.grid import NORM_LABELS, Arm, Sweep, ordered, swept_by
from cifar_jax.study.identity import check_settings
from cifar_jax.study.record import LostPlan, Plan, PlanArm, read_plan
from cifar_jax.study.values import Value, setting_name

if TYPE_CHECKING:
    from cifar_jax.runner.resume import Recorded


def _arm_name(config: Config) -> str:
    """Return the name of a run's arm: in its experiment file, or its norm."""
    return config.experiment.arm or config.model.norm


def _arm_settings(config: Config) -> dict[str, Value]:
    """Return the settings of a run's arm."""
    if config.experiment.arm is None:
        return {"model.norm": config.model.norm}
    found: dict[str, Value] = {"experiment.arm": config.experiment.arm}
    for field in FILE_SETTINGS:
        if field not in ("training.seed", "training.kernels"):
            found[field] = getattr(config.training, field.partition(".")[2])
    return found


class _FoundRun(NamedTuple):
    """A run in a study's directory, with the swept value that its folder names."""

    path: Path
    field: str
    value: Value | None
    recorded: "Recorded"

    @property
    def seed(self) -> int:
        return self.recorded.config.training.seed


def _find_runs(workdir: Path) -> list[_FoundRun]:
    """Return the runs in a study's directory, by time of their end. Unfinished runs are last.

    Raises:
        UserError: a folder's name does not fit its run.
    """
    from cifar_jax.runner.resume import read_recorded

    runs = []
    for path in sorted(workdir.glob("*/seed*")):
        recorded = read_recorded(path)
        if recorded is None:
            continue
        name, seed = _arm_name(recorded.config), recorded.config.training.seed
        swept = swept_by(path.parent.name, name, recorded.config)
        if swept is None or path.name != f"seed{seed}":
            if recorded.config.experiment.arm or path.parent.name.partition("-")[0] in NORMS:
                raise UserError(
                    f"{path}: its run is of arm {name} and seed {seed}, which do not fit this name"
                )
            continue  # It is not a study's run.
        runs.append(_FoundRun(path, *swept, recorded))
    order = {norm: number for number, norm in enumerate(NORMS)}
    return sorted(
        runs,
        key=lambda run: (
            run.recorded.finished or "~",
            order.get(_arm_name(run.recorded.config), 0),
        ),
    )


def _common_sweep(runs: Sequence[_FoundRun]) -> Sweep | None:
    """Return the sweep of the runs, with all their values, or None.

    Raises:
        UserError: the runs sweep different settings.
    """
    (field, _), *_ = Counter(run.field for run in runs).most_common()
    for run in runs:
        if run.field != field:
            raise UserError(
                f"{run.path}: sweeps {run.field or 'nothing'}, must sweep {field or 'nothing'}"
            )
    values = [run.value for run in runs if run.value is not None]
    return Sweep(field, ordered(values)) if field else None


def _without_paths(config: Config) -> Config:
    """Return a config without the fields that may differ between the runs of a study."""
    data = dataclasses.replace(config.data, dataset="", data_dir=None, pipeline="device")
    return dataclasses.replace(config, name="", data=data)


def _rebuild_plan(workdir: Path) -> Plan | None:
    """Rebuild a plan from the runs in a study's directory. Return None if there are none.

    Raises:
        UserError: they are not one study; the message names a run that differs from most.
    """
    runs = _find_runs(workdir)
    known = [(run, run.recorded.dataset) for run in runs if run.recorded.dataset is not None]
    if not known:
        return None
    sweep = _common_sweep(runs)
    configs = {_arm_name(run.recorded.config): run.recorded.config for run in reversed(runs)}
    arms = {
        name: PlanArm(name, NORM_LABELS.get(name, name), _arm_settings(config))
        for name, config in reversed(configs.items())
    }
    seeds = tuple(sorted({run.seed for run in runs}))

    def arm_of(run: _FoundRun) -> Arm:
        arm = arms[_arm_name(run.recorded.config)].arm
        return dataclasses.replace(arm, field=run.field, value=run.value)

    first = arm_of(runs[0])
    if sweep:
        first = dataclasses.replace(first, value=sweep.values[0])

    def study_config(run: _FoundRun) -> Config:
        return first.config(run.recorded.config, seeds[0])

    def experiment(run: _FoundRun, data: DatasetRecord) -> tuple[Config, str]:
        return _without_paths(study_config(run)), data.fingerprint

    most_common, _ = Counter(experiment(*pair) for pair in known).most_common(1)[0]
    run, dataset = next(pair for pair in known if experiment(*pair) == most_common)
    config = study_config(run)
    for run in runs:
        wanted = arm_of(run).config(config, run.seed)
        check_settings(run.path, run.recorded.config, run.recorded.dataset, wanted, dataset)
    return Plan(tuple(arms.values()), seeds, tables.to_dict(config), dataset, sweep)


def find_plan(workdir: Path) -> tuple[Plan, str]:
    """Read `study.json`, or rebuild it from the runs if it is missing or damaged.

    Returns:
        The plan, and a line for the user, empty if `study.json` is intact.

    Raises:
        LostPlan: it is missing or damaged, and there are no runs.
        UserError: it cannot be read, or the runs are not one study.
    """
    try:
        return read_plan(workdir), ""
    except LostPlan as error:
        lost = str(error)
    try:
        plan = _rebuild_plan(workdir)
    except UserError as error:
        raise UserError(f"{lost}, and its runs are not one study: {error}") from None
    if plan is None:
        raise LostPlan(f"{lost}; there are no runs to rebuild it from")
    swept = f", {setting_name(plan.sweep.field)}" if plan.sweep else ""
    seeds = ", ".join(map(str, plan.seeds))
    return plan, f"{lost}; rebuilt from its runs: {', '.join(plan.names)}{swept}; seeds {seeds}"


class Saved(NamedTuple):
    """The config, seeds and arms with which the command `study` continues a study.

    The config has the first seed and their number. The study's seeds can have gaps.
    """

    config: Config
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]


def saved_study(workdir: Path) -> Saved | None:
    """Read the study in a directory, or None if there is none."""
    try:
        plan, _ = find_plan(workdir)
    except LostPlan:
        return None
    before = plan.settings.study
    study = StudyConfig(
        arms=",".join(plan.names),
        sweep=plan.sweep.text if plan.sweep else None,
        seeds=before.seeds if before.half_width else len(plan.seeds),
        half_width=before.half_width,
        seed_parallelism=before.seed_parallelism,
    )
    training = dataclasses.replace(plan.settings.training, seed=plan.seeds[0])
    config = dataclasses.replace(plan.settings, training=training, study=study)
    seeds = tuple(range(plan.seeds[0], plan.seeds[0] + before.seeds))
    return Saved(config, seeds if before.half_width else plan.seeds, plan.grid_arms)
