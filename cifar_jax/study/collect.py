"""Read the finished and diverged runs of a study."""

import dataclasses
import functools
import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
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
from cifar_jax.study.claims import Claim
from cifar_jax.study.grid import NORM_LABELS, Sweep
from cifar_jax.study.identity import check_origins, check_results
from cifar_jax.study.record import Plan, read_plan, run_path
from cifar_jax.study.values import Value

_LARGEST_PREDICTIONS = 2 << 30  # bytes, unpacked


@dataclass(frozen=True, eq=False)
class Run:
    """A finished or diverged run. The arrays of a diverged run are empty.

    Attributes:
        directory: the run's directory.
        results: its `results.json`.
        predicted: int32 (N,), predicted class of each test image.
        label: int32 (N,), true class of each test image.
        logits: float32 (N, classes).
    """

    directory: Path
    results: Results
    predicted: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    @property
    def arm(self) -> str:
        """Name of the run's arm: in its experiment file, or its norm."""
        arm: str | None = self.results.config.get("experiment", {}).get("arm")
        return arm or self.results.norm or ""

    @property
    def seed(self) -> int:
        """The seed of its initial values and its order of images."""
        return self.results.seed

    @property
    def tested(self) -> Finished:
        """The results of a finished run."""
        assert isinstance(self.results, Finished)
        return self.results

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is right, bool (N,)."""
        return self.predicted == self.label

    @property
    def confusion(self) -> np.ndarray:
        """Counts of images, int64 (classes, classes). Rows are true classes."""
        n = self.logits.shape[1]
        pairs = n * self.label.astype(np.int64) + self.predicted
        return np.bincount(pairs, minlength=n * n).reshape(n, n)

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """Cross-entropy of each test image in nats, float64 (N,)."""
        return cross_entropy(self.logits, self.label)

    def curve(self, name: str) -> list[float]:
        """Return one column of the history, a value for each epoch."""
        return [getattr(row, name) for row in self.results.history]


@dataclass(frozen=True, eq=False)
class Study:
    """The runs of a study.

    Attributes:
        workdir: the study's directory.
        arms: names of the arms, also of those without a finished run.
        seeds: of the study, also those without a finished run.
        runs: finished runs of each arm, by increasing seed. Every arm has an entry.
        missing: (arm, seed) of the runs that are not finished.
        diverged: (arm, seed) of the missing runs that diverged.
        dataset: the record of the data, the same for all runs.
        config: tables of the study's config.
        labels: names of the arms in the report.
        title: of the report; empty for the default one.
        control: name of the arm to compare with; empty for the default one.
        claims: to decide.
        unshared: see `record.Plan`.
    """

    workdir: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: dict[str, list[Run]]
    missing: tuple[tuple[str, int], ...]
    diverged: tuple[tuple[str, int], ...]
    dataset: DatasetRecord
    config: dict[str, Any]
    labels: dict[str, str] = field(default_factory=dict)
    title: str = ""
    control: str = ""
    claims: tuple[Claim, ...] = ()
    unshared: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the experiment file, or ""."""
        return str(self.config.get("experiment", {}).get("file", ""))

    def label(self, arm: str) -> str:
        """Return the name of an arm in the report."""
        return self.labels.get(arm) or NORM_LABELS.get(arm, arm)

    def pairs(self, first: str, second: str) -> list[tuple[Run, Run]]:
        """Return the pairs of finished runs of two arms with the same seed."""
        others = {run.seed: run for run in self.runs[second]}
        return [(run, others[run.seed]) for run in self.runs[first] if run.seed in others]


@dataclass(frozen=True, eq=False)
class SweepStudy:
    """A study with a swept setting: a study of the norms at each of its values.

    Attributes:
        workdir: the study's directory.
        sweep: the setting and its values.
        studies: one for each value, in their order. A value may have no finished run.
        dataset: the record of the data of a finished run.
        config: tables of the study's config.
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
    """Read a run's predicted classes, true classes and logits.

    Raises:
        Damaged: they cannot be read, or do not fit the results.
    """
    path = workdir / PREDICTIONS
    try:
        # From memory: np.load does not close a damaged file.
        content = io.BytesIO(read_bytes(path, _LARGEST_PREDICTIONS))
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        if results.predictions_sha256 not in (None, digest):
            raise ValueError(f"{RESULTS} has another digest of it")
        with zipfile.ZipFile(content) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_PREDICTIONS:
                raise ValueError("too large")
        with np.load(content, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("predicted", "label", "logits")}
        if not _fits(results, **found):
            raise ValueError(f"its arrays do not fit {RESULTS}")
    # For damaged files, NumPy and zipfile raise many types, even TokenError and MemoryError.
    except Exception as error:
        if is_lack(error):
            raise
        raise Damaged(f"{path}: cannot be used: {one_line(error)}") from None
    return found


def _fits(results: Finished, predicted: np.ndarray, label: np.ndarray, logits: np.ndarray) -> bool:
    """Return whether predictions have the shapes, types, classes and confusions of results."""
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
    """Read a finished or diverged run. Return None for an unfinished run.

    Raises:
        Damaged: a file of the run cannot be used; the message says which, and why.
    """
    results = read_results(workdir)
    if results is None:
        return None
    if isinstance(results, Finished):
        return Run(workdir, results, **_predictions(workdir, results))
    logits = np.zeros((0, len(results.dataset.classes)), np.float32)
    return Run(workdir, results, np.zeros(0, np.int32), np.zeros(0, np.int32), logits)


def read_intact(workdir: Path) -> Run | None:
    """Read a finished or diverged run. Return None if it is unfinished or damaged."""
    try:
        return read_ended(workdir)
    except Damaged:
        return None


def damage(workdir: Path) -> str | None:
    """Describe damage of a run's results or predictions in one line. Return None without damage."""
    try:
        read_ended(workdir)
    except Damaged as error:
        return str(error)
    return None


def read_divergence(workdir: Path) -> DivergedAt | None:
    """Read where a run diverged. Return None if it did not, or its results are damaged."""
    run = read_intact(workdir)
    return run.results.diverged if run and isinstance(run.results, Diverged) else None


def divergence_line(found: DivergedAt, workdir: Path) -> str:
    """Describe in one line where a run diverged."""
    step = f", step {found.step}" if found.step is not None else ", at its end"
    cause = f"; {found.operation}" if found.operation else ""
    return (
        f"{workdir}: training diverged in epoch {found.epoch}{step}: the loss is not finite{cause}"
    )


def _check_same_labels(run: Run, first: Run) -> None:
    if not np.array_equal(run.label, first.label):
        raise UserError(f"{run.directory}: was tested on other images than {first.directory}")


def _check_same_origins(runs: Iterable[Run]) -> None:
    """Check that runs with the same `init_from` have the same initial values."""
    check_origins((run.directory, run.results.settings, run.results.origin_digest) for run in runs)


def _read_runs(workdir: Path, plan: Plan, value: Value | None) -> Study:
    """Read the runs of a study. With a sweep, read the runs at one of its values."""
    swept = plan.sweep.field if plan.sweep else ""
    arms = {arm.name: dataclasses.replace(arm, field=swept, value=value) for arm in plan.grid_arms}
    ended = {
        (name, seed): read_intact(run_path(workdir, arm.directory, seed))
        for name, arm in arms.items()
        for seed in plan.seeds
    }
    config = plan.settings
    for (name, seed), run in ended.items():
        if run is not None:
            wanted = arms[name].config(config, seed)
            check_results(run.directory, run.results, wanted, plan.dataset)
    finished = {
        cell: run for cell, run in ended.items() if run and isinstance(run.results, Finished)
    }
    for run in finished.values():
        _check_same_labels(run, next(iter(finished.values())))
    return Study(
        workdir=workdir,
        arms=plan.names,
        seeds=plan.seeds,
        runs={name: [run for run in finished.values() if run.arm == name] for name in plan.names},
        missing=tuple(cell for cell in ended if cell not in finished),
        diverged=tuple(cell for cell, run in ended.items() if run and cell not in finished),
        dataset=next((run.results.dataset for run in finished.values()), plan.dataset),
        config=plan.config,
        labels=plan.labels,
        title=plan.title,
        control=plan.control,
        claims=plan.claims,
        unshared=plan.unshared,
    )


def read_study(workdir: Path) -> Study:
    """Read a study without a sweep.

    Raises:
        UserError: there is no study or no finished run, or its runs cannot be compared.
    """
    study = _read_runs(workdir, read_plan(workdir), None)
    if not any(study.runs.values()):
        raise UserError(f"{workdir}: holds no finished run of its study")
    _check_same_origins(run for row in study.runs.values() for run in row)
    return study


def read_sweep(workdir: Path) -> SweepStudy:
    """Read a study with a sweep.

    Raises:
        UserError: see `read_study`; or the study has no sweep.
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
