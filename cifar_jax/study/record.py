"""`study.json`: what a study consists of, as it was written or as its runs tell it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cifar_jax import config as configuration
from cifar_jax.config import NORMS, Config, StudyConfig
from cifar_jax.errors import UserError
from cifar_jax.inputs import Shape, fits, is_count, is_name, is_number
from cifar_jax.storage import read_sealed
from cifar_jax.study.grid import Arm, Sweep, arm_of, ordered, parse_sweep, setting_name
from cifar_jax.study.identity import check_begun

if TYPE_CHECKING:
    from cifar_jax.runner.resume import Recorded

STUDY = "study.json"


@dataclass(frozen=True)
class Plan:
    """What `study.json` says.

    Attributes:
        arms: norms.
        seeds: increasing.
        config: what the study was started with.
        dataset: the record of the data.
        sweep: the swept setting, if any.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    config: dict[str, Any]
    dataset: dict[str, Any]
    sweep: Sweep | None = None


class LostPlan(UserError):
    """`study.json` is missing or is not what was written."""


def run_path(workdir: Path, arm: str, seed: int) -> Path:
    """Directory of one run of a study; `arm` is that of `Arm.directory`."""
    return workdir / arm / f"seed{seed}"


def _is_value(value: Any) -> bool:
    return type(value) is bool or is_number(value) or is_name(value)


_PLAN: Shape = {
    "arms": [lambda value: value in NORMS],
    "seeds": [is_count],
    "config": dict,
    "dataset": {"fingerprint": is_name},
}
_SWEEP: Shape = {"field": is_name, "values": [_is_value]}


def _read_sweep(found: Any, path: Path) -> Sweep | None:
    if found is None:
        return None
    if not fits(found, _SWEEP):
        raise LostPlan(f"{path}: its sweep needs a field, section.name, and a list of values")
    text = Sweep(found["field"], tuple(found["values"])).text
    return parse_sweep(Config(study=StudyConfig(sweep=text)))


def read_plan(path: Path) -> Plan:
    """Read `study.json`.

    Raises:
        LostPlan: if it is not there, or is not what was written.
        UserError: if it cannot be read.
    """
    try:
        plan = read_sealed(path)
    except FileNotFoundError as error:
        raise LostPlan(f"{path}: cannot be read ({error.strerror})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise LostPlan(f"{path}: is not the record of a study") from None
    if not (fits(plan, _PLAN) and plan["arms"] and plan["seeds"]):
        raise LostPlan(
            f"{path}: is not the record of a study: it needs a list of arms ({', '.join(NORMS)}), "
            "a list of whole-number seeds, a config, and a dataset with its fingerprint"
        )
    try:
        return Plan(
            arms=tuple(dict.fromkeys(plan["arms"])),
            seeds=tuple(sorted(set(plan["seeds"]))),
            config=configuration.to_dict(configuration.from_dict(plan["config"], "config")),
            dataset=plan["dataset"],
            sweep=_read_sweep(plan.get("sweep"), path),
        )
    except UserError as error:
        raise LostPlan(f"{path}: is not the record of a study: {error}") from None


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
    from cifar_jax.runner.resume import recorded

    members = []
    for path in sorted(workdir.glob("*/seed*")):
        said = recorded(path) if path.parent.name.partition("-")[0] in NORMS else None
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
        (_comparable(whole(member)), data["fingerprint"]) for member, data in known
    ).most_common(1)[0]
    config, dataset = next(
        (whole(member), data)
        for member, data in known
        if (_comparable(whole(member)), data["fingerprint"]) == usual
    )
    for member in members:
        wanted = member.arm.config(config, member.seed)
        check_begun(member.path, member.said.config, member.said.dataset, wanted, dataset)
    norms = tuple(dict.fromkeys(member.arm.norm for member in members))
    return Plan(norms, seeds, configuration.to_dict(config), dataset, sweep)


def find_plan(workdir: Path) -> tuple[Plan, str]:
    """What `study.json` says, or if it is lost what the runs say.

    Returns:
        The plan, and a line for the user; empty if `study.json` is whole.

    Raises:
        LostPlan: if it is lost and no run is there.
        UserError: if it cannot be read, or the runs cannot be one study.
    """
    try:
        return read_plan(workdir / STUDY), ""
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


def saved_config(workdir: Path) -> Config | None:
    """The config with which the command `study` goes on with a directory's study.

    Returns:
        None if it holds no study.
    """
    try:
        plan, _ = find_plan(workdir)
    except LostPlan:
        return None
    config = configuration.from_dict(plan.config, str(workdir / STUDY))
    first, count = plan.seeds[0], plan.seeds[-1] - plan.seeds[0] + 1
    study = {
        "arms": ",".join(plan.arms),
        "sweep": plan.sweep.text if plan.sweep else None,
        "seeds": count,
    }
    config = configuration.override(config, "training", "seed", first, f"{workdir / STUDY}: seeds")
    for name, value in study.items():
        config = configuration.override(config, "study", name, value, f"{workdir / STUDY}: {name}")
    return config
