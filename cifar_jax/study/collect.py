"""Read the finished and diverged runs of a study."""

import functools
import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.errors import UserError, one_line
from cifar_jax.failures import is_lack
from cifar_jax.inputs import read_bytes
from cifar_jax.names import PREDICTIONS, RESULTS
from cifar_jax.runner.evaluation import cross_entropy
from cifar_jax.runner.results import (
    Damaged,
    DatasetRecord,
    Diverged,
    DivergedAt,
    Finished,
    Results,
    read_results,
)
from cifar_jax.study.grid import Arm, Sweep, Value
from cifar_jax.study.identity import check_origins, check_results
from cifar_jax.study.record import Plan, read_plan, run_path

_LARGEST_PREDICTIONS = 2 << 30  # bytes, unpacked


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; or one that diverged, whose arrays are empty.

    Attributes:
        directory: of its files.
        results: its `results.json`.
        predicted: int32 (N,), class of each test image.
        label: int32 (N,), its true class.
        logits: float32 (N, classes).
    """

    directory: Path
    results: Results
    predicted: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    @property
    def arm(self) -> str:
        """Its norm."""
        return self.results.norm

    @property
    def seed(self) -> int:
        """Of initial values and order."""
        return self.results.seed

    @property
    def tested(self) -> Finished:
        """The results of a finished run."""
        assert isinstance(self.results, Finished)
        return self.results

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
        return [getattr(row, name) for row in self.results.history]


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
    dataset: DatasetRecord
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
    dataset: DatasetRecord
    config: dict[str, Any]

    @property
    def first(self) -> Study:
        """The study at the first value with a finished run."""
        return next(study for study in self.studies if any(study.runs.values()))


def _predictions(workdir: Path, results: Finished) -> dict[str, np.ndarray]:
    """Predicted and true classes and logits of a run.

    Raises:
        Damaged: if they cannot be read, or are not those of these results.
    """
    path = workdir / PREDICTIONS
    try:
        # np.load leaves a damaged file open that it opened itself.
        content = io.BytesIO(read_bytes(path, _LARGEST_PREDICTIONS))
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        if results.predictions_sha256 not in (None, digest):
            raise ValueError(f"{RESULTS} has another digest of it")
        with zipfile.ZipFile(content) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_PREDICTIONS:
                raise ValueError("too large")
        with np.load(content, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("predicted", "label", "logits")}
        if not _agree(results, **found):
            raise ValueError(f"its arrays do not fit {RESULTS}")
    # NumPy and zipfile raise many kinds for a damaged file, even of the tokenizer and of memory.
    except Exception as error:
        if is_lack(error):
            raise
        raise Damaged(f"{path}: cannot be used: {one_line(error)}") from None
    return found


def _agree(results: Finished, predicted: np.ndarray, label: np.ndarray, logits: np.ndarray) -> bool:
    """Whether predictions are those of a run with these results."""
    n, names = results.dataset.n_test, results.dataset.classes
    matrix, classes = results.confusion_matrix, len(names)
    given = [results.per_class_accuracy[name] is not None for name in names]
    return (
        n > 0
        and predicted.shape == label.shape == (n,)
        and logits.shape == (n, classes)
        and predicted.dtype.kind == label.dtype.kind == "i"
        and logits.dtype.kind == "f"
        and bool(np.isfinite(logits).all())
        and all(int(x.min()) >= 0 and int(x.max()) < classes for x in (predicted, label))
        and given == (np.bincount(label, minlength=classes) > 0).tolist()
        and (
            matrix is None
            or np.ravel(matrix).tolist()
            == np.bincount(classes * label + predicted, minlength=classes**2).tolist()
        )
    )


def read_ended(workdir: Path) -> Run | None:
    """Read a run that finished or diverged.

    Returns:
        None if it has not ended.

    Raises:
        Damaged: naming the file that cannot be used, and why.
    """
    results = read_results(workdir)
    if results is None:
        return None
    if isinstance(results, Finished):
        return Run(workdir, results, **_predictions(workdir, results))
    logits = np.zeros((0, len(results.dataset.classes)), np.float32)
    return Run(workdir, results, np.zeros(0, np.int32), np.zeros(0, np.int32), logits)


def read_intact(workdir: Path) -> Run | None:
    """Read a run that finished or diverged; None if it did not, or its files are damaged."""
    try:
        return read_ended(workdir)
    except Damaged:
        return None


def damage(workdir: Path) -> str | None:
    """What is wrong with the results or predictions of a run, in one line; None if nothing is."""
    try:
        read_ended(workdir)
    except Damaged as error:
        return str(error)
    return None


def read_divergence(workdir: Path) -> DivergedAt | None:
    """Where a run diverged; None if it did not, or its results are damaged."""
    run = read_intact(workdir)
    return run.results.diverged if run and isinstance(run.results, Diverged) else None


def divergence_line(found: DivergedAt, workdir: Path) -> str:
    """Where a run diverged, for the user."""
    step = f", step {found.step}" if found.step is not None else ", at its end"
    cause = f"; {found.operation}" if found.operation else ""
    return (
        f"{workdir}: training diverged in epoch {found.epoch}{step}: the loss is not finite{cause}"
    )


def _check_same_labels(run: Run, first: Run) -> None:
    if not np.array_equal(run.label, first.label):
        raise UserError(f"{run.directory}: was tested on other images than {first.directory}")


def _check_same_origins(runs: Iterable[Run]) -> None:
    """Refuse runs that began from other versions of the same initial values."""
    check_origins(
        (
            run.directory,
            run.results.settings,
            run.results.origin_digest,
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
    ended = {cell: read_intact(path) for cell, path in paths.items()}
    config = plan.settings
    for (norm, seed), run in ended.items():
        if run is not None:
            wanted = Arm(norm, field, value).config(config, seed)
            check_results(run.directory, run.results, wanted, plan.dataset)
    finished = {
        cell: run for cell, run in ended.items() if run and isinstance(run.results, Finished)
    }
    for run in finished.values():
        _check_same_labels(run, next(iter(finished.values())))
    return Study(
        workdir=workdir,
        arms=plan.arms,
        seeds=plan.seeds,
        runs={norm: [run for run in finished.values() if run.arm == norm] for norm in plan.arms},
        missing=tuple(cell for cell in ended if cell not in finished),
        diverged=tuple(cell for cell, run in ended.items() if run and cell not in finished),
        dataset=next((run.results.dataset for run in finished.values()), plan.dataset),
        config=plan.config,
    )


def read_study(workdir: Path) -> Study:
    """Read a study without a sweep.

    Raises:
        UserError: if no study or no finished run is there, or its runs cannot be compared.
    """
    study = _read_runs(workdir, read_plan(workdir), None)
    if not any(study.runs.values()):
        raise UserError(f"{workdir}: holds no finished run of its study")
    _check_same_origins(run for row in study.runs.values() for run in row)
    return study


def read_sweep(workdir: Path) -> SweepStudy:
    """Read a study with a sweep.

    Raises:
        UserError: as `read_study`, or if the study sweeps nothing.
    """
    plan = read_plan(workdir)
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
    return SweepStudy(workdir, plan.sweep, studies, first[0].results.dataset, plan.config)
