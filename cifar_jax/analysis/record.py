"""`analysis.json`: what was measured, of which runs, with which options."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cifar_jax.analysis.part import Part
from cifar_jax.names import ANALYSIS
from cifar_jax.runner.results import Damaged, Line, Text, read_plain, validate
from cifar_jax.storage import nan_to_none, sha256, write_sealed
from cifar_jax.study.collect import Run

VERSION = 1


class Measured(Struct, frozen=True, kw_only=True):
    """What a part measured in one run.

    Attributes:
        arm, seed: of the run.
        predictions: SHA-256 of the run's `predictions.npz`, in hex.
        seconds: wall-clock time of the measurement.
        record: of the part's own type.
    """

    arm: Line
    seed: int
    predictions: Line
    seconds: float
    record: dict[str, Any]


class Together(Struct, frozen=True, kw_only=True):
    """What a part measured in all runs at once.

    Attributes:
        predictions: SHA-256 of the `predictions.npz` of each run.
        record: of the part's own type.
    """

    predictions: tuple[Line, ...]
    record: dict[str, Any]


class PartRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The measurements of one part.

    Attributes:
        version, options: see `part.Part`.
        runs: by increasing arm and seed of the study.
        missing: why something could not be measured, a line each.
        together: None if the part has no such measurement.
        numbers: mean of each number for each arm and its differences. Only for readers of the
            file: the page computes them again.
    """

    version: int
    options: dict[str, Any]
    runs: tuple[Measured, ...] = ()
    missing: tuple[Text, ...] = ()
    together: Together | None = None
    numbers: tuple[dict[str, Any], ...] = ()

    def has(self, run: Run, digest: str) -> bool:
        """Return whether this run, with these predictions, was measured."""
        wanted = run.arm, run.seed, digest
        return any((of.arm, of.seed, of.predictions) == wanted for of in self.runs)


class Analysis(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`analysis.json`.

    Attributes:
        version: of this format.
        fingerprint: of the dataset.
        versions: of Python and packages that measured last.
        parts: by name.
    """

    fingerprint: Line
    version: int = VERSION
    versions: dict[Line, Line] = {}
    parts: dict[Line, PartRecord] = {}


def digest_of(run: Run) -> str:
    """Return the SHA-256 of a run's `predictions.npz`, in hex."""
    known = run.tested.predictions_sha256
    return known or sha256(run.directory / run.tested.predictions)


def read_analysis(workdir: Path, fingerprint: str) -> Analysis | None:
    """Read `analysis.json` of a study or run. Return None without one.

    Raises:
        Damaged: it cannot be used.
    """
    path = workdir / ANALYSIS
    try:
        value = read_plain(path)
    except FileNotFoundError:
        return None
    found: Analysis = validate(value, Analysis, path)
    if found.version != VERSION:
        raise Damaged(f"{path}: cannot be used: another version of cifar_jax wrote it")
    if found.fingerprint != fingerprint:
        raise Damaged(f"{path}: cannot be used: it is of other images")
    return found


def write_analysis(workdir: Path, analysis: Analysis) -> None:
    """Write `analysis.json` atomically, with the digest of its content."""
    write_sealed(workdir / ANALYSIS, msgspec.to_builtins(analysis))


def to_plain(record: Struct) -> dict[str, Any]:
    """Return a part's record as plain data. None replaces NaN and infinity."""
    found: dict[str, Any] = nan_to_none(msgspec.to_builtins(record))
    return found


def from_plain(part: Part[Any], value: dict[str, Any], where: Path) -> Any:
    """Return a part's record of one run.

    Raises:
        Damaged: it is wrong.
    """
    return validate(value, part.record, where)
