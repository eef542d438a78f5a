"""Read what the runs of a study left."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax import config as configuration
from cifar_jax.errors import UserError
from cifar_jax.inputs import (
    Shape,
    fits,
    is_count,
    is_name,
    is_number,
    is_part,
    optional,
    read_bytes,
    read_json,
)

STUDY = "study.json"
RESULTS = "results.json"
PREDICTIONS = "predictions.npz"

# What the statistics and the report need of `results.json`.
_COLUMNS = ("train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds")
_EPOCH: Shape = dict.fromkeys(_COLUMNS, is_number)


def _is_duration(value: Any) -> bool:
    """Seconds, of which there is a share or a multiple."""
    return is_number(value) and 1e-9 < value < 1e12


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


_RESULTS: Shape = {
    "dataset": {
        "name": is_name,
        "fingerprint": is_name,
        "n_train": is_count,
        "n_val": is_count,
        "n_test": is_count,
        "classes": [is_name],
    },
    "config": dict,
    "model": is_name,
    "norm": is_name,
    "seed": int,
    "num_params": is_count,
    "history": [_EPOCH],
    "train_seconds": _is_duration,
    "test_loss": is_number,
    "test_accuracy": _is_share,
    "per_class_accuracy": dict,
    "confusion_matrix": [[is_count]],
    "versions": dict,
    "device": optional(is_name),
    "git_revision": optional(is_name),
}
_LARGEST_PREDICTIONS = 2 << 30  # bytes, unpacked


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
    """Whether `results.json` holds everything that the statistics need, and nothing odd."""
    if not fits(results, _RESULTS):
        return False
    classes, accuracy = results["dataset"]["classes"], results["per_class_accuracy"]
    matrix = results["confusion_matrix"]
    return (
        bool(results["history"])
        and results["num_params"] > 0
        and len(set(classes)) == len(classes) >= 2
        and set(accuracy) == set(classes)
        and all(value is None or _is_share(value) for value in accuracy.values())
        and [len(row) for row in matrix] == [len(classes)] * len(classes)
        and all(is_name(k) and is_name(v) for k, v in results["versions"].items())
        and fits(results.get("finished", ""), str)
    )


def _read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true classes, and logits.

    Raises:
        OSError, ValueError and others: if it cannot be read.
    """
    # np.load leaves a damaged file open that it opened itself.
    content = io.BytesIO(read_bytes(path, _LARGEST_PREDICTIONS))
    with zipfile.ZipFile(content) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LARGEST_PREDICTIONS:
            raise ValueError("too large")
    with np.load(content, allow_pickle=False) as arrays:
        return arrays["predicted"], arrays["label"], arrays["logits"]


def _agree(
    results: dict[str, Any], predicted: np.ndarray, label: np.ndarray, logits: np.ndarray
) -> bool:
    """Whether predictions are those of a run with these results."""
    n, classes = results["dataset"]["n_test"], len(results["dataset"]["classes"])
    return (
        n > 0
        and predicted.shape == label.shape == (n,)
        and logits.shape == (n, classes)
        and predicted.dtype.kind == label.dtype.kind == "i"
        and logits.dtype.kind == "f"
        and bool(np.isfinite(logits).all())
        and all(int(x.min()) >= 0 and int(x.max()) < classes for x in (predicted, label))
    )


def read_run(workdir: Path, arm: str, seed: int) -> Run | None:
    """Read a run, or None if it is not finished or cannot be read."""
    directory = run_path(workdir, arm, seed)
    try:
        results = read_json(directory / RESULTS)
        if not _is_whole(results):
            return None
        filled = configuration.to_dict(configuration.from_dict(results["config"], RESULTS))
        predicted, label, logits = _read_predictions(directory / PREDICTIONS)
    # NumPy and zipfile raise many kinds for a damaged file, even of the tokenizer and of memory.
    except Exception:
        return None
    if not _agree(results, predicted, label, logits):
        return None
    results = {**results, "config": filled}
    return Run(arm, seed, directory, results, predicted, label, logits)


def _check_same(run: Run, first: Run) -> None:
    """Refuse runs that cannot be compared."""
    if run.results["seed"] != run.seed:
        raise UserError(f"{run.directory}: is a run with seed {run.results['seed']}")
    data = [[r.results["dataset"][k] for k in ("fingerprint", "classes")] for r in (run, first)]
    if data[0] != data[1] or not np.array_equal(run.label, first.label):
        raise UserError(f"{run.directory}: was trained on other data than {first.directory}")
    epochs = [len(r.results["history"]) for r in (run, first)]
    if epochs[0] != epochs[1]:
        raise UserError(
            f"{run.directory}: has {epochs[0]} epochs, {first.directory} has {epochs[1]}"
        )


def _read_plan(path: Path) -> tuple[list[str], list[int], dict[str, Any]]:
    """Arms, seeds and config of `study.json`."""
    try:
        plan = read_json(path)
        arms, seeds, config = plan["arms"], plan["seeds"], plan["config"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); no study is there") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is not the record of a study") from None
    # The model card of an arm is written to the folder of its name.
    if not (fits(arms, [is_part]) and fits(seeds, [is_count]) and arms and seeds):
        raise UserError(
            f"{path}: needs a list of arms, each a folder's name, and a list of whole-number seeds"
        )
    filled = configuration.to_dict(configuration.from_dict(config, str(path)))
    return list(dict.fromkeys(arms)), sorted(set(seeds)), filled


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
