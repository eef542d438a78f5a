"""A group of runs that train together: one state with a leading axis of runs, one checkpoint.

One program trains all runs of a group. They differ in seed and in hyper-parameters, which are
arguments of the program. A single run is a group of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from msgspec import structs

from cifar_jax.config.settings import Config
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment
from cifar_jax.kernels import FastModel
from cifar_jax.runner.boundaries import Boundary
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.runner.locate import run_name, study_of
from cifar_jax.runner.programs import CompiledEpoch
from cifar_jax.runner.results import EpochRow, GroupRecord, RunRecord, Spent, Training, Unfinished

# One epoch of a run's history, see `results.EpochRow`. `seconds` is the time that the compiled
# programs took, divided by the number of runs.
EPOCH = np.dtype(
    [
        ("epoch", np.int64),
        ("train_loss", np.float64),
        ("train_accuracy", np.float64),
        ("val_loss", np.float64),
        ("val_accuracy", np.float64),
        ("seconds", np.float64),
        ("learning_rate", np.float64),
        ("images_per_second", np.float64),
    ]
)
_METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")


def to_rows(history: np.ndarray) -> tuple[EpochRow, ...]:
    """Return a run's history, `EPOCH` (epochs,), as records."""
    names = EPOCH.names or ()
    return tuple(EpochRow(**dict(zip(names, row, strict=True))) for row in history.tolist())


def from_rows(rows: Sequence[EpochRow]) -> np.ndarray:
    """Return records as a history, `EPOCH` (epochs,): the inverse of `to_rows`."""
    return np.array([structs.astuple(row) for row in rows], EPOCH)


@dataclass(frozen=True)
class Divergence:
    """Where the loss of a run stopped being finite.

    Attributes:
        epoch: counted from 1.
        step: within the epoch, counted from 1. None if all steps are finite, but the validation
            loss or the mean is not.
    """

    epoch: int
    step: int | None

    def __str__(self) -> str:
        if self.step is None:
            return f"training diverged at the end of epoch {self.epoch}: its loss is not finite"
        return f"training diverged in epoch {self.epoch}, step {self.step}: the loss is not finite"


def position_of(at: Boundary) -> Position:
    """Return the position of a boundary."""
    return Position(at.epoch - 1, at.steps) if at.metrics is None else Position(at.epoch)


@dataclass(frozen=True)
class Run:
    """One run of a group.

    Attributes:
        config: of the run.
        experiment, hyper: built from the config.
        workdir: its directory.
        label: prefix of its output lines, for example "batch seed 43".
        described: the experiment in words, by field, if it is of an experiment file.
    """

    config: Config
    experiment: Experiment
    hyper: Hyper
    workdir: Path
    label: str = ""
    described: dict[str, str] | None = None

    @property
    def model_name(self) -> str:
        """Name of the network: that of the config, or the class in an experiment file."""
        if self.config.experiment.file is None:
            return self.config.model.name
        model = self.experiment.model
        return type(model.model if isinstance(model, FastModel) else model).__name__.lower()


@dataclass
class Group:
    """Runs that train together, from their start to their last epoch.

    Attributes:
        runs: of the group.
        records: of each run, without its history.
        program: trains an epoch of all runs.
        hyper: hyper-parameters, with a leading axis of runs.
        n_train: number of training images.
        at: the newest boundary.
        history: `EPOCH` (runs, epochs). Rows of a run after it diverged have no meaning.
        diverged: divergence of each diverged run, by index.
        outside: seconds of the loop outside of programs, since this start.
    """

    runs: tuple[Run, ...]
    records: tuple[Training, ...]
    program: CompiledEpoch
    hyper: Hyper
    n_train: int
    at: Boundary
    history: np.ndarray
    diverged: dict[int, Divergence] = field(default_factory=dict)
    outside: float = 0.0

    @property
    def last(self) -> int:
        """Number of the last epoch."""
        return self.runs[0].config.training.epochs

    @property
    def alive(self) -> list[int]:
        """Indices of the runs that have not diverged."""
        return [i for i in range(len(self.runs)) if i not in self.diverged]

    @property
    def directory(self) -> Path:
        """The run's directory; with several runs, the directory of their study."""
        first = self.runs[0].workdir
        return first if len(self.runs) == 1 else study_of(first)

    @property
    def position(self) -> Position:
        """The position of the newest boundary."""
        return position_of(self.at)

    def rows(self, index: int) -> tuple[EpochRow, ...]:
        """Return the history of a run."""
        found = self.diverged.get(index)
        return to_rows(self.history[index, : found.epoch - 1 if found else None])

    def newest_row(self, index: int) -> EpochRow:
        """Return the row of a run's newest epoch."""
        return to_rows(self.history[index, -1:])[0]

    def advance(self, at: Boundary) -> None:
        """Store a new boundary. At the end of an epoch, extend the history and find divergence."""
        self.at = at
        if at.metrics is None:
            return
        runs = len(self.runs)  # The arrays have more rows where `spread` repeats the last run.
        found = jax.device_get(at.metrics)._asdict()
        metrics = {name: np.atleast_1d(values)[:runs] for name, values in found.items()}
        seconds = at.seconds / runs
        new = np.zeros(runs, EPOCH)
        new["epoch"], new["seconds"] = at.epoch, seconds
        new["images_per_second"] = self.n_train / seconds
        for name in _METRICS:
            # The shortest decimals of the same float32: 0.01, not 0.009999999776482582.
            new[name] = [float(str(value)) for value in metrics[name]]
        for i in self.alive:
            step = int(metrics["bad_step"][i])
            if step >= 0 or not all(np.isfinite(new[name][i]) for name in _METRICS):
                self.diverged[i] = Divergence(at.epoch, step + 1 if step >= 0 else None)
        self.history = np.concatenate([self.history, new[:, None]], axis=1)

    def spent(self, index: int, evaluation: float = 0.0) -> Spent | None:
        """Return where the time of a run went. None if its start does not say.

        Args:
            evaluation: seconds of its evaluation.
        """
        before, share = self.records[index].spent, 1 / len(self.runs)
        if before is None:
            return None
        return structs.replace(
            before,
            training=float(self.history[index]["seconds"].sum())
            + (share * self.at.seconds if self.position.steps else 0.0),
            writing=before.writing + share * self.outside,
            evaluation=evaluation,
        )

    def record(self, indices: Sequence[int]) -> GroupRecord:
        """Return the metadata of a checkpoint of some of the runs."""
        runs = []
        for i in indices:
            fields = structs.asdict(self.records[i])
            fields |= {"history": self.rows(i), "spent": self.spent(i)}
            runs.append(RunRecord(name=run_name(self.runs[i].workdir), **fields))
        unfinished = None
        if self.position.steps:
            seconds = self.at.seconds / len(self.runs)
            unfinished = Unfinished(steps=self.position.steps, seconds=seconds)
        return GroupRecord(runs=tuple(runs), unfinished=unfinished)
