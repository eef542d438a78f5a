"""`study.json`, the record of a study's runs and settings. It can be rebuilt from the runs."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, structs
from msgspec.structs import force_setattr

from cifar_jax.config import tables
from cifar_jax.config.settings import NORMS, Config, StudyConfig
from cifar_jax.errors import UserError, shown
from cifar_jax.names import STUDY
from cifar_jax.runner.results import Count, Damaged, DatasetRecord, validate
from cifar_jax.storage import read_sealed, write_sealed
from cifar_jax.study.grid import Arm, Sweep, arm_of, ordered, parse_sweep, setting_name
from cifar_jax.study.identity import check_settings

if TYPE_CHECKING:
    from cifar_jax.runner.resume import Recorded


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """`study.json`.

    Attributes:
        arms: norms, each once.
        seeds: increasing.
        config: tables of the study's config, with all fields.
        dataset: of the runs; with a sweep, of the runs at its first value.
        sweep: the swept setting, if any.
    """

    arms: Annotated[tuple[str, ...], Meta(min_length=1)]
    seeds: Annotated[tuple[Count, ...], Meta(min_length=1)]
    config: dict[str, Any]
    dataset: DatasetRecord
    sweep: Sweep | None = None

    def __post_init__(self) -> None:
        for arm in self.arms:
            if arm not in NORMS:
                raise ValueError(f"arms: {shown(arm)} is not known; allowed: {', '.join(NORMS)}")
        force_setattr(self, "arms", tuple(dict.fromkeys(self.arms)))
        force_setattr(self, "seeds", tuple(sorted(set(self.seeds))))
        force_setattr(self, "config", tables.to_dict(self.settings))

    @property
    def settings(self) -> Config:
        """The config as an object."""
        return tables.from_dict(self.config, "config")


class LostPlan(UserError):
    """`study.json` is missing or damaged."""


def run_path(workdir: Path, arm: str, seed: int) -> Path:
    """Return the directory of a study's run. `arm` is its `Arm.directory`."""
    return workdir / arm / f"seed{seed}"


def read_plan(workdir: Path) -> Plan:
    """Read `study.json` of a study's directory.

    Raises:
        LostPlan: it is missing or damaged.
        UserError: it cannot be read.
    """
    path = workdir / STUDY
    try:
        plan: Plan = validate(read_sealed(path), Plan, path)
        if plan.sweep is not None:
            sweep = parse_sweep(Config(study=StudyConfig(sweep=plan.sweep.text)))
            plan = structs.replace(plan, sweep=sweep)
    except FileNotFoundError as error:
        raise LostPlan(f"{path}: cannot be read ({error.strerror})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Damaged as error:
        raise LostPlan(str(error)) from None
    except (ValueError, UserError) as error:
        raise LostPlan(f"{path}: cannot be used: {error}") from None
    return plan


def write_plan(workdir: Path, plan: Plan) -> None:
    """Write `study.json`."""
    write_sealed(workdir / STUDY, msgspec.to_builtins(plan))


class _FoundRun(NamedTuple):
    """A run in a study's directory, with the arm that its folder names."""

    path: Path
    arm: Arm
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
        recorded = read_recorded(path) if path.parent.name.partition("-")[0] in NORMS else None
        if recorded is None:
            continue
        norm, seed = recorded.config.model.norm, recorded.config.training.seed
        arm = arm_of(path.parent.name, recorded.config)
        if arm is None or path.name != f"seed{seed}":
            raise UserError(
                f"{path}: its run has norm {norm} and seed {seed}, which do not fit this name"
            )
        runs.append(_FoundRun(path, arm, recorded))
    return sorted(runs, key=lambda run: (run.recorded.finished or "~", NORMS.index(run.arm.norm)))


def _common_sweep(runs: Sequence[_FoundRun]) -> Sweep | None:
    """Return the sweep of the runs, with all their values, or None.

    Raises:
        UserError: the runs sweep different settings.
    """
    (field, _), *_ = Counter(run.arm.field for run in runs).most_common()
    for run in runs:
        if run.arm.field != field:
            raise UserError(
                f"{run.path}: sweeps {run.arm.field or 'nothing'}, must sweep {field or 'nothing'}"
            )
    values = [run.arm.value for run in runs if run.arm.value is not None]
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
    first = Arm(runs[0].arm.norm, *((sweep.field, sweep.values[0]) if sweep else ()))
    seeds = tuple(sorted({run.seed for run in runs}))

    def study_config(run: _FoundRun) -> Config:
        return first.config(run.recorded.config, seeds[0])

    def experiment(run: _FoundRun, data: DatasetRecord) -> tuple[Config, str]:
        return _without_paths(study_config(run)), data.fingerprint

    most_common, _ = Counter(experiment(*pair) for pair in known).most_common(1)[0]
    run, dataset = next(pair for pair in known if experiment(*pair) == most_common)
    config = study_config(run)
    for run in runs:
        wanted = run.arm.config(config, run.seed)
        check_settings(run.path, run.recorded.config, run.recorded.dataset, wanted, dataset)
    norms = tuple(dict.fromkeys(run.arm.norm for run in runs))
    return Plan(norms, seeds, tables.to_dict(config), dataset, sweep)


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
    return plan, f"{lost}; rebuilt from its runs: {', '.join(plan.arms)}{swept}; seeds {seeds}"


class Saved(NamedTuple):
    """The config and seeds with which the command `study` continues a study.

    The config has the first seed and their number. The study's seeds can have gaps.
    """

    config: Config
    seeds: tuple[int, ...]


def saved_study(workdir: Path) -> Saved | None:
    """Read the study in a directory, or None if there is none."""
    try:
        plan, _ = find_plan(workdir)
    except LostPlan:
        return None
    study = StudyConfig(
        arms=",".join(plan.arms),
        sweep=plan.sweep.text if plan.sweep else None,
        seeds=len(plan.seeds),
        seed_parallelism=plan.settings.study.seed_parallelism,
    )
    training = dataclasses.replace(plan.settings.training, seed=plan.seeds[0])
    return Saved(dataclasses.replace(plan.settings, training=training, study=study), plan.seeds)
