"""Train an experiment with several seeds, and keep the results in memory."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.config import tables
from cifar_jax.config.build import for_device
from cifar_jax.config.settings import FileConfig, TrainingConfig
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState, init_state
from cifar_jax.errors import InputError, UserError, counted, shown
from cifar_jax.export.checked import Exported
from cifar_jax.library.exporting import export_runs
from cifar_jax.library.images import Images
from cifar_jax.library.predictor import Predictor, runs_predictor
from cifar_jax.library.progress import progress_bar
from cifar_jax.names import IN_PYTHON
from cifar_jax.runner import outcome
from cifar_jax.runner.boundaries import Boundary, boundaries
from cifar_jax.runner.ending import common_fields
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.runner.group import EPOCH, Group, Run, from_rows
from cifar_jax.runner.programs import first_state, stack_runs
from cifar_jax.runner.results import Diverged, DivergedAt, Results, Training
from cifar_jax.runner.session import compiled_epoch
from cifar_jax.study.definition import described
from cifar_jax.study.file import OF_HYPER
from cifar_jax.study.file_checks import Problem, check_experiment

# Seconds of a call of a program. Ctrl-C ends it after the call.
SEGMENT = 3.0
METRICS = tuple(name for name in EPOCH.names or () if name != "epoch")


@dataclass(frozen=True, eq=False, repr=False)
class Runs:
    """Trained runs of an experiment, one per seed. Rows of a run that diverged are NaN.

    Attributes:
        experiment: what was trained.
        hyper: its hyper-parameters.
        data: its images.
        results: of each run, with the fields of the file `results.json`.
        logits: float32 (seeds, N, classes), of the test images.
        states: after the last epoch, with a leading axis of seeds.
    """

    experiment: Experiment
    hyper: Hyper
    data: Images
    results: tuple[Results, ...]
    logits: np.ndarray
    states: TrainState

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each run, in the order of all arrays."""
        return tuple(found.seed for found in self.results)

    @functools.cached_property
    def history(self) -> dict[str, np.ndarray]:
        """Every metric of every epoch, float64 (seeds, epochs).

        Losses are in nats and accuracies fractions. `seconds` of an epoch are without compilation;
        of runs that train together each has its share.
        """
        shape = len(self.results), self.experiment.epochs
        found = {name: np.full(shape, np.nan) for name in METRICS}
        for i, results in enumerate(self.results):
            rows = from_rows(results.history)
            for name in METRICS:
                found[name][i, : len(rows)] = rows[name]
        return found

    @functools.cached_property
    def test_accuracy(self) -> np.ndarray:
        """Share of the test images that each run classifies correctly, float64 (seeds,)."""
        return np.array([getattr(found, "test_accuracy", np.nan) for found in self.results])

    @functools.cached_property
    def test_loss(self) -> np.ndarray:
        """Mean cross-entropy of the test images in nats, float64 (seeds,)."""
        return np.array([getattr(found, "test_loss", np.nan) for found in self.results])

    @property
    def diverged(self) -> dict[int, DivergedAt]:
        """Where the loss of a seed stopped being finite, by seed."""
        return {r.seed: r.diverged for r in self.results if isinstance(r, Diverged)}

    def export(self, path: str | Path, seed: int | None = None, pixels: str = "uint8") -> Exported:
        """Write the network of a seed for another program, see `exporting.export_runs`."""
        return export_runs(self, path, seed, pixels)

    def predictor(self) -> Predictor:
        """Return all seeds as an ensemble that predicts, see `predictor.runs_predictor`."""
        return runs_predictor(self)

    def __repr__(self) -> str:
        found = 100 * self.test_accuracy[np.isfinite(self.test_accuracy)]
        accuracy = f", test accuracy {found.mean():.2f}" if len(found) else ""
        accuracy += f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else ""
        accuracy += " %" if len(found) else ""
        wrong = "".join(
            f"; seed {seed} diverged in epoch {at.epoch}" for seed, at in self.diverged.items()
        )
        runs, seeds = len(self.seeds), ", ".join(map(str, self.seeds))
        return (
            f"<{counted(runs, 'run')} of {counted(self.experiment.epochs, 'epoch')} on "
            f"{self.data.name}, seed{'s' * (runs > 1)} {seeds}{accuracy}{wrong}>"
        )


def run(
    experiment: Experiment,
    data: Images,
    seeds: Iterable[int] = (42,),
    hyper: Hyper | None = None,
    *,
    seed_parallelism: int | None = None,
    progress: bool = True,
) -> Runs:
    """Train an experiment with each seed, and evaluate it on the test images.

    A run equals that of the command line with the same settings and seed. It writes no file and
    shows only a bar, on a terminal or in a notebook.

    >>> import cifar_jax as cj
    >>> data = cj.load("synthetic", classes=["disk", "ring"], train_examples=256, val_examples=64)
    >>> small = cj.CNN(num_classes=2, norm="batch", widths=(4, 8, 8), hidden=16)
    >>> runs = cj.run(cj.Experiment(small, epochs=2), data, seeds=range(3))
    >>> runs
    <3 runs of 2 epochs on synthetic-2of10, seeds 0, 1, 2, test accuracy ... ± ... %>
    >>> runs.history["val_accuracy"].shape, runs.test_accuracy.shape, runs.logits.shape
    ((3, 2), (3,), (3, 2000, 2))

    Args:
        experiment: what to train. Its layers get the faster code of `kernels`.
        data: images, from `load` or `from_arrays`.
        seeds: of initial values, order of images, augmentation and dropout; 0 to 2**32 - 1.
        hyper: hyper-parameters; None for the protocol's. Other values need no new compilation.
        seed_parallelism: runs that train together in one program. None for all on an accelerator,
            and one on a CPU, where one run uses all cores.
        progress: show the bar.

    Raises:
        InputError: a wrong argument; the message says which.
    """
    chosen = _checked_seeds(seeds)
    scalars = _scalars(Hyper() if hyper is None else hyper)
    _check(experiment, scalars, data)
    if seed_parallelism is not None and seed_parallelism < 1:
        raise InputError(f"seed_parallelism={seed_parallelism}: must be at least 1")
    together = seed_parallelism or (1 if jax.default_backend() == "cpu" else len(chosen))
    what, total = f"{counted(len(chosen), 'run')}, epochs", len(chosen) * experiment.epochs
    batches: list[_Batch] = []
    with progress_bar(progress) as show:

        def show_epochs(done: float) -> None:
            show(what, len(batches) * together * experiment.epochs + done, total)

        for start in range(0, len(chosen), together):
            runs = [_run(experiment, scalars, data, seed) for seed in chosen[start:][:together]]
            batches.append(_train(data, runs, show_epochs))
    return Runs(
        experiment,
        scalars,
        data,
        tuple(results for batch in batches for results in batch.results),
        np.concatenate([batch.logits for batch in batches]),
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(b.state for b in batches)),
    )


def _checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds.

    Raises:
        InputError: there is none, or one is repeated or not allowed.
    """
    if not isinstance(seeds, Iterable):
        raise InputError(
            f"seeds: {shown(seeds)} is not a list of seeds; give [{seeds}], or range({seeds}) for "
            "that many"
        )
    found = tuple(seeds)
    if not found:
        raise InputError("seeds: there is none; give at least one")
    for seed in found:
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
            raise InputError(f"seeds: {shown(seed)} is not allowed; allowed: 0 to 2**32 - 1")
    if len(set(found)) < len(found):
        repeated = next(seed for seed in found if found.count(seed) > 1)
        raise InputError(f"seeds: {repeated} is repeated; each may be given once")
    return tuple(map(int, found))


def _scalars(hyper: Hyper) -> Hyper:
    """Return hyper-parameters as float32 scalars.

    Raises:
        InputError: one is not a number, or out of range.
    """
    if not isinstance(hyper, Hyper):
        raise InputError(f"hyper: {shown(hyper)} is not a Hyper, such as Hyper(learning_rate=0.1)")
    values = {field.name: getattr(hyper, field.name) for field in fields(hyper)}
    for name, value in values.items():
        if np.ndim(value) or not isinstance(value, int | float | np.number | jax.Array):
            raise InputError(f"hyper: {name}: {shown(value)} is not a number; run once for each")
    for name in OF_HYPER:
        _check_setting(name, float(values[name]), f"hyper: {name}")
    return type(hyper)(**{name: np.float32(value) for name, value in values.items()})


def _check_setting(name: str, value: int | float, where: str) -> None:
    """Check the limits of a setting, which are those of the command line."""
    try:
        tables.check_value(TrainingConfig, name, value, where)
    except UserError as error:
        raise InputError(str(error)) from None


def _wrong(function: object, message: str) -> InputError:
    return InputError(f"experiment: {message}")


def _check(experiment: Experiment, hyper: Hyper, data: Images) -> None:
    """Check that an experiment fits the images. Nothing is computed.

    Raises:
        InputError: it does not.
    """
    if not isinstance(experiment, Experiment):
        raise InputError(f"experiment: {shown(experiment)} is not an Experiment(model=...)")
    if not isinstance(data, Images):
        kind = type(data).__name__
        raise InputError(f"data: a {kind} is not allowed; make it by load or from_arrays")
    for name in ("epochs", "batch_size"):
        _check_setting(name, getattr(experiment, name), f"experiment: {name}")
    shape, n, batch = data.test_images.shape[1:], len(data.train_rows), experiment.batch_size
    check_experiment(experiment, hyper, Problem(shape, len(data.classes), n), _wrong)
    state = jax.eval_shape(lambda key: init_state(experiment, key, shape), jax.random.key(0))
    if jax.tree.leaves(state.batch_stats) and 1 in (batch, n % batch):
        raise InputError(
            f"experiment: batch_size={batch}: of {n:,} training images a batch would be a single "
            "one, which has no variance for BatchNorm"
        )


def _run(experiment: Experiment, hyper: Hyper, data: Images, seed: int) -> Run:
    """Return a run as commands describe it."""
    training = TrainingConfig(
        seed=seed,
        epochs=experiment.epochs,
        batch_size=experiment.batch_size,
        learning_rate=float(str(hyper.learning_rate)),
        momentum=float(str(hyper.momentum)),
        weight_decay=float(str(hyper.weight_decay)),
    )
    config = replace(data.config, training=training, experiment=FileConfig(file=IN_PYTHON))
    label = f"seed {seed}"
    return Run(config, for_device(experiment), hyper, Path(), label, described(experiment, hyper))


class _Batch(NamedTuple):
    """Runs that trained together. Fields as in `Runs`."""

    results: list[Results]
    logits: np.ndarray
    state: TrainState


def _train(data: Images, runs: Sequence[Run], show: Callable[[float], None]) -> _Batch:
    """Train runs together, and evaluate them.

    Args:
        data: images.
        runs: of one experiment.
        show: called with the number of finished epochs of all runs.
    """
    show(0)
    group = _begin(data, runs)
    for at in boundaries(group.program, group.hyper, group.at, group.last, SEGMENT):
        group.advance(at)
        part = at.steps / (group.program.full + 1) if at.metrics is None else 1
        show(len(runs) * (at.epoch - 1 + part))
        if not group.alive:
            break
    show(len(runs) * group.last)
    images = data.session.prepared.dataset.test_images
    logits = group.program.predict(group.hyper, group.at.state, images)
    logits[[*group.diverged]] = np.nan
    results = [_end(data, group, i, logits[i]) for i in range(len(runs))]
    return _Batch(results, logits, group.at.state)


def _begin(data: Images, runs: Sequence[Run]) -> Group:
    """Compile the program of a group, and return the group at its start."""
    experiment, session = runs[0].experiment, data.session
    shape, seeds = data.test_images.shape[1:], [run.config.training.seed for run in runs]
    images = session.prepared.first_images(experiment.init_images)
    state = stack_runs([first_state(experiment, seed, shape, images) for seed in seeds])
    hyper = jax.device_put(stack_runs([run.hyper for run in runs]))
    begun = time.perf_counter()
    program = compiled_epoch(session, experiment, hyper, state).result()
    compiled = time.perf_counter() - begun
    records = [
        Training(
            config=tables.to_dict(run.config),
            dataset=session.prepared.record(),
            compile_seconds=compiled,
            computed_on=(session.computing,),
            history=(),
            described=run.described,
        )
        for run in runs
    ]
    history = np.zeros((len(runs), 0), EPOCH)
    n_train, start = len(data.train_rows), Boundary(state, 1, 0, 0.0)
    return Group(tuple(runs), tuple(records), program, hyper, n_train, start, history)


def _end(data: Images, group: Group, index: int, logits: np.ndarray) -> Results:
    """Return the results of a run, whose logits of the test images are (N, classes)."""
    fields = common_fields(data.session, group, index)
    if found := group.diverged.get(index):
        return outcome.divergence(DivergedAt(epoch=found.epoch, step=found.step), **fields)
    return outcome.finished(evaluate_logits(logits, np.asarray(data.test_labels)), **fields)
