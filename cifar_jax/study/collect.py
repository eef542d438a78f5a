"""Read what the runs of a study left."""

import functools
import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax import config as configuration
from cifar_jax.errors import UserError
from cifar_jax.failures import is_lack
from cifar_jax.inputs import (
    Shape,
    fits,
    is_count,
    is_name,
    is_number,
    optional,
    read_bytes,
)
from cifar_jax.storage import read_sealed
from cifar_jax.study.grid import Arm, Sweep, Value
from cifar_jax.study.identity import check_origins, check_results
from cifar_jax.study.measures import cross_entropy
from cifar_jax.study.record import STUDY, Plan, read_plan, run_path

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
    "confusion_matrix": optional([[is_count]]),
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

    @property
    def confusion(self) -> np.ndarray:
        """int64 (classes, classes): images of each true class (row) by predicted class."""
        n = self.logits.shape[1]
        pairs = n * self.label.astype(np.int64) + self.predicted
        return np.bincount(pairs, minlength=n * n).reshape(n, n)

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """float64 (N,): cross-entropy of each test image, in nats."""
        return cross_entropy(self.logits, self.label)

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


def _is_whole(results: Any) -> bool:
    """Whether `results.json` holds everything that the statistics need, and nothing odd."""
    if not fits(results, _RESULTS):
        return False
    classes, accuracy = results["dataset"]["classes"], results["per_class_accuracy"]
    matrix = results["confusion_matrix"]
    return (
        results.get("status", "finished") == "finished"
        and bool(results["history"])
        and results["num_params"] > 0
        and len(set(classes)) == len(classes) >= 2
        and set(accuracy) == set(classes)
        and all(value is None or _is_share(value) for value in accuracy.values())
        and (matrix is None or [len(row) for row in matrix] == [len(classes)] * len(classes))
        and all(is_name(k) and is_name(v) for k, v in results["versions"].items())
        and fits(results.get("finished", ""), str)
    )


def _read_results(directory: Path) -> Any:
    """A run's `results.json`, which has the digest of its own content and of the predictions.

    Raises:
        OSError, ValueError: if it cannot be read or is not what was written.
    """
    results = read_sealed(directory / RESULTS)
    # An earlier version wrote neither digest.
    if ("sha256" in results) != ("predictions_sha256" in results):
        raise ValueError("one of its two digests is gone")
    return results


def _read_predictions(path: Path, digest: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true classes, and logits.

    Args:
        path: of the file.
        digest: its SHA-256 in hex, where it is known.

    Raises:
        OSError, ValueError and others: if it cannot be read.
    """
    # np.load leaves a damaged file open that it opened itself.
    content = io.BytesIO(read_bytes(path, _LARGEST_PREDICTIONS))
    if digest is not None and hashlib.sha256(content.getbuffer()).hexdigest() != digest:
        raise ValueError("not the predictions of these results")
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
    matrix = results["confusion_matrix"]
    return (
        n > 0
        and predicted.shape == label.shape == (n,)
        and logits.shape == (n, classes)
        and predicted.dtype.kind == label.dtype.kind == "i"
        and logits.dtype.kind == "f"
        and bool(np.isfinite(logits).all())
        and all(int(x.min()) >= 0 and int(x.max()) < classes for x in (predicted, label))
        and (
            matrix is None
            or np.ravel(matrix).tolist()
            == np.bincount(classes * label + predicted, minlength=classes**2).tolist()
        )
    )


def read_run(directory: Path, arm: str, seed: int) -> Run | None:
    """Read a run, or None if it is not finished or cannot be read."""
    try:
        results = _read_results(directory)
        if not _is_whole(results):
            return None
        filled = configuration.to_dict(configuration.from_dict(results["config"], RESULTS))
        wanted = results.get("predictions_sha256")
        predicted, label, logits = _read_predictions(directory / PREDICTIONS, wanted)
    # NumPy and zipfile raise many kinds for a damaged file, even of the tokenizer and of memory.
    except Exception as error:
        if is_lack(error):
            raise
        return None
    if not _agree(results, predicted, label, logits):
        return None
    results = {**results, "config": filled}
    return Run(arm, seed, directory, results, predicted, label, logits)


_ENDED: Shape = {
    "dataset": {"fingerprint": is_name, "classes": [is_name]},
    "config": dict,
    "model": is_name,
    "norm": is_name,
    "seed": int,
    "history": list,
}


_DIVERGED: Shape = {
    "status": lambda value: value == "diverged",
    "diverged": {"epoch": is_count, "step": optional(is_count)},
}


def ended_results(directory: Path) -> dict[str, Any] | None:
    """A run's `results.json`, of one that finished or diverged, if it says what was run."""
    try:
        results: dict[str, Any] = read_sealed(directory / RESULTS)
        return results if fits(results, _ENDED) else None
    except (OSError, ValueError):
        return None


def _diverged_results(directory: Path) -> dict[str, Any] | None:
    results = ended_results(directory)
    return results if fits(results, _DIVERGED) else None


def read_divergence(directory: Path) -> dict[str, Any] | None:
    """Where a run's `results.json` says that its loss stopped being finite, if it does.

    Returns:
        `epoch` and `step`, counted from 1, the step None where only validation shows it; with
        `--debug-nans` also `operation`.
    """
    results = _diverged_results(directory)
    return results["diverged"] if results else None


def divergence_line(found: dict[str, Any], directory: Path) -> str:
    """What `read_divergence` found in a run's directory, for the user."""
    step = f", step {found['step']}" if found["step"] is not None else ", at its end"
    cause = f"; {found['operation']}" if is_name(found.get("operation")) else ""
    return (
        f"{directory}: training diverged in epoch {found['epoch']}{step}: the loss is not finite"
        f"{cause}"
    )


def damaged(directory: Path) -> bool:
    """Whether a run has left results that cannot be used, though it did not diverge."""
    return (
        (directory / RESULTS).exists()
        and read_divergence(directory) is None
        and read_run(directory, "", 0) is None
    )


def _check_same_labels(run: Run, first: Run) -> None:
    if not np.array_equal(run.label, first.label):
        raise UserError(f"{run.directory}: was tested on other images than {first.directory}")


def _check_same_origins(runs: Iterable[Run]) -> None:
    """Refuse runs that began from other versions of the same initial values."""
    check_origins(
        (
            run.directory,
            configuration.from_dict(run.results["config"], RESULTS),
            run.results.get("init_from"),
        )
        for run in runs
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
    missing = tuple(key for key, run in found.items() if run is None)
    config = configuration.from_dict(plan.config, STUDY)
    data = {**finished[0].results["dataset"], **plan.dataset} if finished else plan.dataset
    for (norm, seed), path in paths.items():
        run = found[norm, seed]
        results = run.results if run else _diverged_results(path)
        if results is not None:
            check_results(path, results, Arm(norm, field, value).config(config, seed), data)
    for run in finished:
        _check_same_labels(run, finished[0])
    return Study(
        workdir=workdir,
        arms=plan.arms,
        seeds=plan.seeds,
        runs={norm: [run for run in finished if run.arm == norm] for norm in plan.arms},
        missing=missing,
        diverged=tuple(key for key in missing if read_divergence(paths[key])),
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
    _check_same_origins(run for row in study.runs.values() for run in row)
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
        _check_same_labels(run, first[0])
    _check_same_origins(run for at in studies for row in at.runs.values() for run in row)
    return SweepStudy(workdir, plan.sweep, studies, first[0].results["dataset"], plan.config)
