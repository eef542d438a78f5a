"""Read what the runs of a study left."""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.study.grid import Arm, Sweep, Value, ordered

STUDY = "study.json"
FAILED = "failed.json"
RESULTS = "results.json"
PREDICTIONS = "predictions.npz"

_NUMBERS = ("test_accuracy", "test_loss", "train_seconds", "num_params")
_TABLES = ("dataset", "config", "versions", "per_class_accuracy")


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run.

    Attributes:
        arm: which variant, for example "batch".
        seed: of the run.
        directory: where it lies.
        results: its `results.json`.
        predicted: int32 (N,), class of each test image.
        label: int32 (N,), its true class.
        logits: float32 (N, classes).
    """

    arm: str
    seed: int
    directory: Path
    results: dict[str, Any]
    predicted: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """bool (N,): whether the prediction is right."""
        return self.predicted == self.label

    def curve(self, name: str) -> list[float]:
        """One column of the history, a value an epoch."""
        return [row[name] for row in self.results["history"]]


@dataclass(frozen=True, eq=False)
class Study:
    """The runs of a study.

    Attributes:
        workdir: where they lie.
        arms: all that were asked for.
        seeds: all that were asked for.
        runs: arm -> its finished runs, by increasing seed; every arm has an entry.
        missing: (arm, seed) of the others.
        diverged: those of the missing whose loss stopped being finite.
        dataset: the record of the data, the same for all runs.
        config: what the study was started with.
    """

    workdir: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: dict[str, list[Run]]
    missing: tuple[tuple[str, int], ...]
    diverged: tuple[tuple[str, int], ...]
    dataset: dict[str, Any]
    config: dict[str, Any]

    def pairs(self, first: str, second: str) -> list[tuple[Run, Run]]:
        """Runs of two arms with the same seed."""
        others = {run.seed: run for run in self.runs[second]}
        return [(run, others[run.seed]) for run in self.runs[first] if run.seed in others]


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


@dataclass(frozen=True, eq=False)
class SweepStudy:
    """A study with a swept setting: a study of the norms at each of its values.

    Attributes:
        workdir: where it lies.
        sweep: the setting and its values.
        studies: one a value, in their order; at some, no run may be finished.
        dataset: the record of the data of a finished run.
        config: what the study was started with.
    """

    workdir: Path
    sweep: Sweep
    studies: tuple[Study, ...]
    dataset: dict[str, Any]
    config: dict[str, Any]

    @property
    def first(self) -> Study:
        """The study at the first value with a finished run."""
        return next(study for study in self.studies if any(study.runs.values()))


def run_path(workdir: Path, arm: str, seed: int) -> Path:
    """Directory of one run of a study; `arm` is that of `Arm.directory`."""
    return workdir / arm / f"seed{seed}"


def _is_whole(results: Any) -> bool:
    """Whether `results.json` holds everything that the statistics need."""
    if not isinstance(results, dict):
        return False
    history = results.get("history")
    columns = ("train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds")
    return (
        all(isinstance(results.get(name), int | float) for name in _NUMBERS)
        and all(isinstance(results.get(name), dict) for name in _TABLES)
        and isinstance(history, list)
        and bool(history)
        and all(
            isinstance(row, dict) and all(isinstance(row.get(k), int | float) for k in columns)
            for row in history
        )
    )


def read_run(directory: Path, arm: str, seed: int) -> Run | None:
    """Read a run, or None if it is not finished or cannot be read."""
    try:
        results = json.loads((directory / RESULTS).read_text(encoding="utf-8"))
        # np.load leaves a damaged file open that it opened itself.
        with open(directory / PREDICTIONS, "rb") as file, np.load(file) as arrays:
            predicted, label, logits = (arrays[k] for k in ("predicted", "label", "logits"))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    fits = predicted.shape == label.shape == logits.shape[:1] and logits.ndim == 2
    if not (_is_whole(results) and fits):
        return None
    return Run(arm, seed, directory, results, predicted, label, logits)


def has_diverged(directory: Path) -> bool:
    """Whether a run's directory says that its loss stopped being finite."""
    if (directory / FAILED).exists():
        return True
    try:
        results = json.loads((directory / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(results, dict) and results.get("status") == "diverged"


def _check_same_data(run: Run, first: Run) -> None:
    """Refuse runs that cannot be compared."""
    if run.results["seed"] != run.seed:
        raise UserError(f"{run.directory}: is a run with seed {run.results['seed']}")
    fingerprints = [r.results["dataset"].get("fingerprint") for r in (run, first)]
    if fingerprints[0] != fingerprints[1] or not np.array_equal(run.label, first.label):
        raise UserError(f"{run.directory}: was trained on other data than {first.directory}")


def _check_same_length(run: Run, first: Run) -> None:
    epochs = [len(r.results["history"]) for r in (run, first)]
    if epochs[0] != epochs[1]:
        raise UserError(
            f"{run.directory}: has {epochs[0]} epochs, {first.directory} has {epochs[1]}"
        )


def _read_sweep_plan(found: Any, path: Path) -> Sweep | None:
    if found is None:
        return None
    try:
        field, values = found["field"], found["values"]
        section, name = field.split(".")
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path}: its sweep needs a field, section.name, and values") from None
    plain = isinstance(values, list) and all(
        isinstance(v, bool | int | float | str) for v in values
    )
    if not (plain and values):
        raise UserError(f"{path}: its sweep needs a list of values")
    return Sweep(f"{section}.{name}", ordered(values))


def read_plan(path: Path) -> Plan:
    """Read `study.json`.

    Raises:
        UserError: if it cannot be read or is something else.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        arms, seeds, config = plan["arms"], plan["seeds"], plan["config"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); no study is there") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is not the record of a study") from None
    if not (
        isinstance(arms, list)
        and isinstance(seeds, list)
        and all(isinstance(arm, str) for arm in arms)
        and all(type(seed) is int for seed in seeds)
    ):
        raise UserError(f"{path}: needs a list of arms and a list of whole-number seeds")
    return Plan(
        arms=tuple(dict.fromkeys(arms)),
        seeds=tuple(sorted(set(seeds))),
        config=config,
        dataset=plan.get("dataset", {}),
        sweep=_read_sweep_plan(plan.get("sweep"), path),
    )


def _read_runs(workdir: Path, plan: Plan, value: Value | None) -> Study:
    """The study of the norms, at one value of the swept setting where there is one."""
    field = plan.sweep.field if plan.sweep else ""
    paths = {
        (norm, seed): run_path(workdir, Arm(norm, field, value).directory, seed)
        for norm in plan.arms
        for seed in plan.seeds
    }
    found = {(norm, seed): read_run(path, norm, seed) for (norm, seed), path in paths.items()}
    finished = [run for run in found.values() if run is not None]
    for run in finished:
        _check_same_data(run, finished[0])
        _check_same_length(run, finished[0])
    missing = tuple(key for key, run in found.items() if run is None)
    return Study(
        workdir=workdir,
        arms=plan.arms,
        seeds=plan.seeds,
        runs={norm: [run for run in finished if run.arm == norm] for norm in plan.arms},
        missing=missing,
        diverged=tuple(key for key in missing if has_diverged(paths[key])),
        dataset=finished[0].results["dataset"] if finished else plan.dataset,
        config=plan.config,
    )


def read_study(workdir: Path) -> Study:
    """Read a study without a sweep.

    Raises:
        UserError: if no study or no finished run is there, or its runs cannot be compared.
    """
    study = _read_runs(workdir, read_plan(workdir / STUDY), None)
    if not any(study.runs.values()):
        raise UserError(f"{workdir}: holds no finished run of its study")
    return study


def read_sweep(workdir: Path) -> SweepStudy:
    """Read a study with a sweep.

    Raises:
        UserError: as `read_study`, or if the study sweeps nothing.
    """
    plan = read_plan(workdir / STUDY)
    if plan.sweep is None:
        raise UserError(f"{workdir}: is a study without a sweep")
    studies = tuple(_read_runs(workdir, plan, value) for value in plan.sweep.values)
    first = [
        next(row[0] for row in s.runs.values() if row) for s in studies if any(s.runs.values())
    ]
    if not first:
        raise UserError(f"{workdir}: holds no finished run of its study")
    for run in first:
        _check_same_data(run, first[0])
    return SweepStudy(workdir, plan.sweep, studies, first[0].results["dataset"], plan.config)
