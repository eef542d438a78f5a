"""`study.json`, the record of a study's runs and settings. It can be rebuilt from the runs."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs
from msgspec.structs import force_setattr

from cifar_jax.config import tables
from cifar_jax.config.settings import FILE_SETTINGS, Config, StudyConfig
from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import ARM
from cifar_jax.names import STUDY
from cifar_jax.runner.results import Count, Damaged, DatasetRecord, Line, validate
from cifar_jax.storage import read_sealed, write_sealed
from cifar_jax.study.claims import Claim
from cifar_jax.study.grid import NORM_LABELS, Arm, Sweep, parse_sweep
from cifar_jax.study.values import Value, set_values

# Settings in which arms differ.
ARM_SETTINGS = ("model.norm", "experiment.arm", *FILE_SETTINGS)


class PlanArm(msgspec.Struct, frozen=True):
    """An arm in `study.json`.

    Attributes:
        name: of a norm, or of an arm of the experiment file.
        label: its name in the report.
        settings: by `section.name`, see `grid.Arm`.
    """

    name: Annotated[str, Meta(pattern=rf"\A{ARM}\Z")]
    label: Line
    settings: dict[str, Value]

    def __post_init__(self) -> None:
        for field, value in self.settings.items():
            if field not in ARM_SETTINGS:
                raise ValueError(f"settings: {shown(field)} is not a setting of an arm")
            set_values(Config(), field, value)
        if self.name not in (self.settings.get("model.norm"), self.settings.get("experiment.arm")):
            raise ValueError(f"name: {self.name} is not in its settings")

    @property
    def arm(self) -> Arm:
        """The arm of the grid, without a swept value."""
        return Arm(self.name, tuple(self.settings.items()))


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """`study.json`.

    Attributes:
        arms: of the study.
        seeds: increasing.
        config: tables of the study's config, with all fields.
        dataset: of the runs; with a sweep, of the runs at its first value.
        sweep: the swept setting, if any.
        title: of the report; empty for the default one.
        control: name of the arm to compare with; empty for the default one.
        claims: to decide.
        unshared: sentences on the random draws that an arm does not share with the control.
    """

    arms: Annotated[tuple[PlanArm, ...], Meta(min_length=1)]
    seeds: Annotated[tuple[Count, ...], Meta(min_length=1)]
    config: dict[str, Any]
    dataset: DatasetRecord
    sweep: Sweep | None = None
    title: str = ""
    control: str = ""
    claims: tuple[Claim, ...] = ()
    unshared: dict[str, tuple[Line, ...]] = {}

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.arms):
            raise ValueError("arms: two have the same name")
        named = [name for claim in self.claims for name in (claim.arm, claim.than)]
        for name in (*named, *self.unshared, *([self.control] if self.control else [])):
            if name not in self.names:
                raise ValueError(f"{shown(name)} is not one of its arms")
        force_setattr(self, "seeds", tuple(sorted(set(self.seeds))))
        force_setattr(self, "config", tables.to_dict(self.settings))

    @property
    def settings(self) -> Config:
        """The config as an object."""
        return tables.from_dict(self.config, "config")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arms."""
        return tuple(arm.name for arm in self.arms)

    @property
    def labels(self) -> dict[str, str]:
        """Names of the arms in the report."""
        return {arm.name: arm.label for arm in self.arms}

    @property
    def grid_arms(self) -> tuple[Arm, ...]:
        """The arms without a swept value."""
        return tuple(arm.arm for arm in self.arms)


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
        plan: Plan = validate(_with_settings(read_sealed(path)), Plan, path)
        if plan.sweep is not None:
            study = StudyConfig(sweep=plan.sweep.text)
            sweep = parse_sweep(dataclasses.replace(plan.settings, study=study))
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


def _with_settings(record: Any) -> Any:
    """Return a record whose arms have settings. Earlier versions wrote names of norms."""
    arms = record.get("arms") if isinstance(record, dict) else None
    if not isinstance(arms, list):
        return record
    return {
        **record,
        "arms": [
            {"name": arm, "label": NORM_LABELS.get(arm, arm), "settings": {"model.norm": arm}}
            if isinstance(arm, str)
            else arm
            for arm in arms
        ],
    }


def write_plan(workdir: Path, plan: Plan) -> None:
    """Write `study.json`."""
    write_sealed(workdir / STUDY, msgspec.to_builtins(plan))
