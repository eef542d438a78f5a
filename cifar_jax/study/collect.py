"""Read the finished and diverged runs of a study."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.device import cpu_count
from cifar_jax.errors import UserError
from cifar_jax.runner.evaluation import losses_and_confidences
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
from cifar_jax.study.measures import bin_sums
from cifar_jax.study.predictions import check_predictions, read_predictions
from cifar_jax.study.record import Plan, read_plan, run_path
from cifar_jax.study.values import Value


@dataclass(frozen=True, eq=False)
class Run:
    """A finished or diverged run. The arrays of a diverged run are empty.

    A study of thousands of runs would not fit into memory with their logits.

    Attributes:
        directory: the run's directory.
        results: its `results.json`.
        predicted: int16 (N,), predicted class of each test image.
        label: int32 (N,), true class of each test image.
        losses: float64 (N,), cross-entropy of each test image in nats.
        bins: of the test predictions, see `measures.bin_sums`.
        read_logits: reads `logits`.
    """

    directory: Path
    results: Results
    predicted: np.ndarray
    label: np.ndarray
    losses: np.ndarray
    bins: np.ndarray
    read_logits: Callable[[], np.ndarray]

    @property
    def logits(self) -> np.ndarray:
        """Logits of the test images, float32 (N, classes). Each access may read them again."""
        return self.read_logits()

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
        n = len(self.results.dataset.classes)
        pairs = n * self.label.astype(np.int64) + self.predicted
        return np.bincount(pairs, minlength=n * n).reshape(n, n)

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
        damaged: a line for each of the missing runs that is damaged.
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
    damaged: tuple[str, ...] = ()

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


def make_run(
    directory: Path,
    results: Results,
    answers: dict[str, np.ndarray],
    read_logits: Callable[[], np.ndarray],
) -> Run:
    """Return a run.

    Args:
        directory: the run's directory.
        results: of the run.
        answers: for the test images, see `read_predictions`.
        read_logits: returns the same logits later.
    """
    predicted, label = answers["predicted"].astype(np.int16), answers["label"]
    losses, confidences = losses_and_confidences(answers["logits"], label)
    bins = bin_sums(confidences, predicted == label)
    return Run(directory, results, predicted, label, losses, bins, read_logits)


def read_ended(workdir: Path) -> Run | None:
    """Read a finished or diverged run. Return None for an unfinished run.

    Raises:
        Damaged: a file of the run cannot be used; the message says which, and why.
    """
    results = read_results(workdir)
    if results is None:
        return None
    if isinstance(results, Finished):
        answers = read_predictions(workdir, results)
        return make_run(workdir, results, answers, partial(_read_logits, workdir, results))
    none = np.zeros(0, np.int32)
    logits = np.zeros((0, len(results.dataset.classes)), np.float32)
    answers = {"predicted": none, "label": none, "logits": logits}
    return make_run(workdir, results, answers, lambda: logits)


def _read_logits(workdir: Path, results: Finished) -> np.ndarray:
    return read_predictions(workdir, results)["logits"]


def read_intact(workdir: Path) -> Results | None:
    """Read the results of a finished or diverged run, and check its predictions.

    Return None if the run is unfinished or damaged.
    """
    try:
        results = read_results(workdir)
        if isinstance(results, Finished):
            check_predictions(workdir, results)
    except Damaged:
        return None
    return results


def read_divergence(workdir: Path) -> DivergedAt | None:
    """Read where a run diverged. Return None if it did not, or its results are damaged."""
    results = read_intact(workdir)
    return results.diverged if isinstance(results, Diverged) else None


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
    check_origins(
        (run.directory, run.results.settings, run.results.origin_digest)
        for run in runs
        if "transfer" in run.results.config
    )


def _try(workdir: Path) -> Run | Damaged | None:
    try:
        return read_ended(workdir)
    except Damaged as error:
        return error


def _read_all(paths: Sequence[Path]) -> list[Run | Damaged | None]:
    """Read ended runs, on all cores: unpacking takes most of the time, without Python's lock."""
    pool = ThreadPoolExecutor(cpu_count())
    try:
        return list(pool.map(_try, paths))
    finally:
        pool.shutdown(cancel_futures=True)


def _read_runs(workdir: Path, plan: Plan, value: Value | None) -> Study:
    """Read the runs of a study. With a sweep, read the runs at one of its values."""
    swept = plan.sweep.field if plan.sweep else ""
    arms = {arm.name: dataclasses.replace(arm, field=swept, value=value) for arm in plan.grid_arms}
    cells = list(itertools.product(arms, plan.seeds))
    paths = [run_path(workdir, arms[name].directory, seed) for name, seed in cells]
    found = dict(zip(cells, _read_all(paths), strict=True))
    ended = {cell: run for cell, run in found.items() if isinstance(run, Run)}
    config = plan.settings
    for (name, seed), run in ended.items():
        wanted = arms[name].config(config, seed)
        check_results(run.directory, run.results, wanted, plan.dataset)
    finished = {cell: run for cell, run in ended.items() if isinstance(run.results, Finished)}
    for run in finished.values():
        _check_same_labels(run, next(iter(finished.values())))
    return Study(
        workdir=workdir,
        arms=plan.names,
        seeds=plan.seeds,
        runs={name: [run for run in finished.values() if run.arm == name] for name in plan.names},
        missing=tuple(cell for cell in cells if cell not in finished),
        diverged=tuple(cell for cell in ended if cell not in finished),
        dataset=next((run.results.dataset for run in finished.values()), plan.dataset),
        config=plan.config,
        labels=plan.labels,
        title=plan.title,
        control=plan.control,
        claims=plan.claims,
        unshared=plan.unshared,
        damaged=tuple(str(run) for run in found.values() if isinstance(run, Damaged)),
    )


def _check_any(workdir: Path, studies: Sequence[Study]) -> None:
    """Check that there is a finished run.

    Raises:
        UserError: there is none; the message has the first damaged one.
    """
    if not any(row for study in studies for row in study.runs.values()):
        damaged = [f"; {line}" for study in studies for line in study.damaged]
        raise UserError(f"{workdir}: holds no finished run of its study{''.join(damaged[:1])}")


def read_study(workdir: Path) -> Study:
    """Read a study without a sweep.

    Raises:
        UserError: there is no study or no finished run, or its runs cannot be compared.
    """
    study = _read_runs(workdir, read_plan(workdir), None)
    _check_any(workdir, [study])
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
    _check_any(workdir, studies)
    first = [
        next(row[0] for row in s.runs.values() if row) for s in studies if any(s.runs.values())
    ]
    for run in first:
        _check_same_labels(run, first[0])
    _check_same_origins(run for at in studies for row in at.runs.values() for run in row)
    return SweepStudy(workdir, plan.sweep, studies, first[0].results.dataset, plan.config)
