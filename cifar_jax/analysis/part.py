"""What a part of an analysis is, and what it gets to draw its section of the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from cifar_jax.analysis.numbers import Compared, Number, compare_arms
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.data.dataset import Dataset
from cifar_jax.names import PARTS
from cifar_jax.report.section import Section
from cifar_jax.study.collect import Study

R = TypeVar("R", bound=msgspec.Struct)


class Found(NamedTuple, Generic[R]):
    """What a part measured in one run."""

    arm: str
    seed: int
    record: R


@dataclass(frozen=True, eq=False)
class Findings(Generic[R]):
    """All that a part measured in a study.

    Attributes:
        study: its runs with their predictions.
        images: of the study's dataset; None if they were not found.
        runs: one entry for each measured run, by arm and seed.
        numbers: of a record, see `Part`.
        together: the record of `Part.together`; None without one.
        options: see `Part.options`.
    """

    study: Study
    images: Dataset | None
    runs: Sequence[Found[R]]
    numbers: Callable[[R], list[Number]]
    together: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms with a measured run, in the study's order."""
        return tuple(arm for arm in self.study.arms if self.of(arm))

    def of(self, arm: str) -> list[R]:
        """Return the records of an arm, by increasing seed."""
        return [found.record for found in self.runs if found.arm == arm]

    @cached_property
    def compared(self) -> list[Compared]:
        """Mean of each number for each arm, and its differences between arms, paired by seed."""
        cells = [(run.arm, run.seed, self.numbers(run.record)) for run in self.runs]
        return compare_arms(self.study, cells)


def no_options(shared: Shared) -> dict[str, Any]:
    """Return the options of a part that has none."""
    return {}


def no_lines(findings: Findings[Any], arm: str) -> list[str]:
    """Return the model card's lines of a part that adds none."""
    return []


@dataclass(frozen=True)
class Part(Generic[R]):
    """One kind of measurement.

    Attributes:
        name: in `--only` and `analysis.json`; the module's name.
        title: of the section.
        record: type of what `measure` returns, a msgspec Struct. None replaces NaN.
        measure: measures one run. It raises `Lacking` if data that it needs are missing.
        numbers: the numbers of a record that arms are compared by.
        section: the part of the page. Its sentences follow from the numbers.
        version: raise it when the same run gives another record.
        options: plain data that decides the result besides the run, such as fingerprints of
            images. Other options mean a new measurement. Wrong ones raise a UserError.
        together: measures all runs at once, from their predictions; None if it is not needed.
        together_record: type of what `together` returns.
        card: lines for the model card of an arm.
        covers: entry of `model_card.UNMEASURED` that it measures, or "".
    """

    name: str
    title: str
    record: type[R]
    measure: Callable[[TrainedRun], R]
    numbers: Callable[[R], list[Number]]
    section: Callable[[Findings[R]], Section]
    version: int = 1
    options: Callable[[Shared], dict[str, Any]] = no_options
    together: Callable[[Shared], msgspec.Struct] | None = None
    together_record: type[msgspec.Struct] | None = None
    card: Callable[[Findings[R], str], list[str]] = no_lines
    covers: str = ""


def load_part(name: str) -> Part[Any]:
    """Return the part in the module of this name."""
    part: Part[Any] = import_module(f"cifar_jax.analysis.{name}").PART
    return part


def all_parts() -> list[Part[Any]]:
    """Return all parts, in the page's order."""
    return [load_part(name) for name in PARTS]
