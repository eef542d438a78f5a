"""Read what the runs of a study left."""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.errors import UserError

STUDY = "study.json"
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
        dataset: the record of the data, the same for all runs.
        config: what the study was started with.
    """

    workdir: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: dict[str, list[Run]]
    missing: tuple[tuple[str, int], ...]
    dataset: dict[str, Any]
    config: dict[str, Any]

    def pairs(self, first: str, second: str) -> list[tuple[Run, Run]]:
        """Runs of two arms with the same seed."""
        others = {run.seed: run for run in self.runs[second]}
        return [(run, others[run.seed]) for run in self.runs[first] if run.seed in others]


def run_path(workdir: Path, arm: str, seed: int) -> Path:
    """Directory of one run of a study."""
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


def read_run(workdir: Path, arm: str, seed: int) -> Run | None:
    """Read a run, or None if it is not finished or cannot be read."""
    directory = run_path(workdir, arm, seed)
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


def _check_same(run: Run, first: Run) -> None:
    """Refuse runs that cannot be compared."""
    if run.results["seed"] != run.seed:
        raise UserError(f"{run.directory}: is a run with seed {run.results['seed']}")
    fingerprints = [r.results["dataset"].get("fingerprint") for r in (run, first)]
    if fingerprints[0] != fingerprints[1] or not np.array_equal(run.label, first.label):
        raise UserError(f"{run.directory}: was trained on other data than {first.directory}")
    epochs = [len(r.results["history"]) for r in (run, first)]
    if epochs[0] != epochs[1]:
        raise UserError(
            f"{run.directory}: has {epochs[0]} epochs, {first.directory} has {epochs[1]}"
        )


def _read_plan(path: Path) -> tuple[list[str], list[int], dict[str, Any]]:
    """Arms, seeds and config of `study.json`."""
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
    return list(dict.fromkeys(arms)), sorted(set(seeds)), config


def read_study(workdir: Path) -> Study:
    """Read a study's directory.

    Raises:
        UserError: if no study or no finished run is there, or its runs cannot be compared.
    """
    arms, seeds, config = _read_plan(workdir / STUDY)
    found = {arm: [read_run(workdir, arm, seed) for seed in seeds] for arm in arms}
    runs = {arm: [run for run in row if run is not None] for arm, row in found.items()}
    finished = [run for row in runs.values() for run in row]
    if not finished:
        raise UserError(f"{workdir}: holds no finished run of its study")
    for run in finished:
        _check_same(run, finished[0])
    missing = tuple(
        (arm, seed)
        for arm, row in found.items()
        for seed, run in zip(seeds, row, strict=True)
        if run is None
    )
    return Study(
        workdir=workdir,
        arms=tuple(arms),
        seeds=tuple(seeds),
        runs=runs,
        missing=missing,
        dataset=finished[0].results["dataset"],
        config=config,
    )
