"""`study.json`: what a study consists of, as it was written or as its runs tell it."""

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
        config: tables of the study's config, complete.
        dataset: of the runs; with a sweep, of those at its first value.
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
        """The config as a value."""
        return tables.from_dict(self.config, "config")


class LostPlan(UserError):
    """`study.json` is missing or is not what was written."""


def run_path(workdir: Path, arm: str, seed: int) -> Path:
    """Directory of one run of a study; `arm` is that of `Arm.directory`."""
    return workdir / arm / f"seed{seed}"


def read_plan(workdir: Path) -> Plan:
    """Read `study.json` of a study's directory.

    Raises:
        LostPlan: if it is not there, or is not what was written.
        UserError: if it cannot be read.
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


class _Member(NamedTuple):
    """A run, and which one its folder's name says that it is."""

    path: Path
    arm: Arm
    said: "Recorded"

    @property
    def seed(self) -> int:
        return self.said.config.training.seed


def _members(workdir: Path) -> list[_Member]:
    """The runs below a directory, those that finished first at the front.

    Raises:
        UserError: if the folder of one is called otherwise than it would be.
    """
    from cifar_jax.runner.resume import read_recorded

    members = []
    for path in sorted(workdir.glob("*/seed*")):
        said = read_recorded(path) if path.parent.name.partition("-")[0] in NORMS else None
        if said is None:
            continue
        norm, seed = said.config.model.norm, said.config.training.seed
        arm = arm_of(path.parent.name, said.config)
        if arm is None or path.name != f"seed{seed}":
            raise UserError(
                f"{path}: its run has norm {norm} and seed {seed}, which do not fit this name"
            )
        members.append(_Member(path, arm, said))
    return sorted(members, key=lambda m: (m.said.finished or "~", NORMS.index(m.arm.norm)))


def _common_sweep(members: Sequence[_Member]) -> Sweep | None:
    """What the runs sweep.

    Raises:
        UserError: if it is not the same setting.
    """
    (field, _), *_ = Counter(member.arm.field for member in members).most_common()
    for member in members:
        if member.arm.field != field:
            raise UserError(
                f"{member.path}: sweeps {member.arm.field or 'nothing'}, must sweep "
                f"{field or 'nothing'}"
            )
    values = [member.arm.value for member in members if member.arm.value is not None]
    return Sweep(field, ordered(values)) if field else None


def _comparable(config: Config) -> Config:
    data = dataclasses.replace(config.data, dataset="", data_dir=None, pipeline="device")
    return dataclasses.replace(config, name="", data=data)


def _rebuilt(workdir: Path) -> Plan | None:
    """The study of the runs below a directory, or None if there is none.

    Raises:
        UserError: if they cannot be one study, naming a run that differs from most.
    """
    members = _members(workdir)
    known = [(m, m.said.dataset) for m in members if m.said.dataset is not None]
    if not known:
        return None
    sweep = _common_sweep(members)
    first = Arm(members[0].arm.norm, *((sweep.field, sweep.values[0]) if sweep else ()))
    seeds = tuple(sorted({member.seed for member in members}))

    def whole(member: _Member) -> Config:
        return first.config(member.said.config, seeds[0])

    usual, _ = Counter(
        (_comparable(whole(member)), data.fingerprint) for member, data in known
    ).most_common(1)[0]
    config, dataset = next(
        (whole(member), data)
        for member, data in known
        if (_comparable(whole(member)), data.fingerprint) == usual
    )
    for member in members:
        wanted = member.arm.config(config, member.seed)
        check_settings(member.path, member.said.config, member.said.dataset, wanted, dataset)
    norms = tuple(dict.fromkeys(member.arm.norm for member in members))
    return Plan(norms, seeds, tables.to_dict(config), dataset, sweep)


def find_plan(workdir: Path) -> tuple[Plan, str]:
    """What `study.json` says, or if it is lost what the runs say.

    Returns:
        The plan, and a line for the user; empty if `study.json` is whole.

    Raises:
        LostPlan: if it is lost and no run is there.
        UserError: if it cannot be read, or the runs cannot be one study.
    """
    try:
        return read_plan(workdir), ""
    except LostPlan as error:
        lost = str(error)
    try:
        plan = _rebuilt(workdir)
    except UserError as error:
        raise UserError(f"{lost}, and its runs are not one study: {error}") from None
    if plan is None:
        raise LostPlan(f"{lost}; there are no runs to rebuild it from")
    swept = f", {setting_name(plan.sweep.field)}" if plan.sweep else ""
    seeds = ", ".join(map(str, plan.seeds))
    return plan, f"{lost}; rebuilt from its runs: {', '.join(plan.arms)}{swept}; seeds {seeds}"


class Saved(NamedTuple):
    """What continues a study: the config of the command `study`, and the seeds.

    The config counts its seeds up from the first; those of the study can have gaps.
    """

    config: Config
    seeds: tuple[int, ...]


def saved_study(workdir: Path) -> Saved | None:
    """The study of a directory; None if it holds none."""
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
