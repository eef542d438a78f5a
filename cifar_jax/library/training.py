"""Train an experiment with several seeds, and keep the results in memory."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.config.build import CPU_EVAL_BATCH, EVAL_BATCH
from cifar_jax.config.settings import Config, TrainingConfig
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState, init_state, predict
from cifar_jax.errors import InputError, counted, shown
from cifar_jax.kernels import FastModel, fast, slow_layers
from cifar_jax.library.images import Images
from cifar_jax.library.progress import progress_bar
from cifar_jax.runner.evaluation import cross_entropy
from cifar_jax.runner.group import EPOCH, Divergence, Group, Run
from cifar_jax.runner.programs import (
    Boundary,
    CompiledEpoch,
    HostData,
    boundaries,
    compile_device_epoch,
    compile_stream_epoch,
    stack_runs,
    unstack_run,
)
from cifar_jax.runner.session import evaluate_state

# Seconds of a call of a program. Ctrl-C ends it after the call.
SEGMENT = 3.0
METRICS = tuple(name for name in EPOCH.names or () if name != "epoch")


@dataclass(frozen=True, eq=False, repr=False)
class Runs:
    """Trained runs of an experiment, one a seed. Rows of a run that diverged are NaN.

    Attributes:
        experiment: as trained.
        hyper: its hyper-parameters.
        data: its images.
        seeds: of the runs, in the order of all arrays.
        epochs: `history` in one array, `runner.group.EPOCH` (seeds, epochs).
        logits: float32 (seeds, N, classes), of the test images.
        states: after the last epoch, with a leading axis of seeds.
        diverged: where the loss of a seed stopped being finite.
        compile_seconds: time of compilation.
        together: runs that trained together in one program.
    """

    experiment: Experiment
    hyper: Hyper
    data: Images
    seeds: tuple[int, ...]
    epochs: np.ndarray
    logits: np.ndarray
    states: TrainState
    diverged: dict[int, Divergence]
    compile_seconds: float
    together: int

    @functools.cached_property
    def history(self) -> dict[str, np.ndarray]:
        """Every metric of every epoch, float64 (seeds, epochs).

        Losses are in nats and accuracies fractions; `seconds` are those of a run in an epoch.
        """
        return {name: self.epochs[name] for name in METRICS}

    @functools.cached_property
    def test_accuracy(self) -> np.ndarray:
        """Share of the test images that each run classifies correctly, float64 (seeds,)."""
        right = np.mean(self.logits.argmax(axis=2) == self.data.test_labels, axis=1)
        return np.where(self._finished, right, np.nan)

    @functools.cached_property
    def test_loss(self) -> np.ndarray:
        """Mean cross-entropy of the test images in nats, float64 (seeds,)."""
        losses = [cross_entropy(logits, self.data.test_labels).mean() for logits in self.logits]
        return np.array(losses)

    @property
    def _finished(self) -> np.ndarray:
        return np.array([seed not in self.diverged for seed in self.seeds])

    def __repr__(self) -> str:
        n, epochs = self.epochs.shape
        found = 100 * self.test_accuracy[self._finished]
        accuracy = f", test accuracy {found.mean():.2f}" if len(found) else ""
        if len(found) > 1:
            accuracy += f" ± {found.std(ddof=1):.2f}"
        accuracy += " %" if len(found) else ""
        seeds = ", ".join(map(str, self.seeds))
        wrong = "".join(
            f"; seed {seed} diverged in epoch {at.epoch}" for seed, at in self.diverged.items()
        )
        plural = "s" if n > 1 else ""
        return (
            f"<{n} run{plural} of {epochs} epoch{'s' * (epochs > 1)} on {self.data.name}, "
            f"seed{plural} {seeds}{accuracy}{wrong}>"
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

    >>> data = load("synthetic", classes=["disk", "ring"], train_examples=256, val_examples=64)
    >>> small = CNN(num_classes=2, norm="batch", widths=(4, 8, 8), hidden=16)
    >>> runs = run(Experiment(small, epochs=2), data, seeds=range(3))
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
    _check(experiment, data)
    if seed_parallelism is not None and seed_parallelism < 1:
        raise InputError(f"seed_parallelism={seed_parallelism}: must be at least 1")
    together = seed_parallelism or (1 if jax.default_backend() == "cpu" else len(chosen))
    what, total = f"{counted(len(chosen), 'run')}, epochs", len(chosen) * experiment.epochs
    batches: list[_Batch] = []
    with progress_bar(progress) as show:

        def show_epochs(done: float) -> None:
            show(what, len(batches) * together * experiment.epochs + done, total)

        for start in range(0, len(chosen), together):
            group = chosen[start : start + together]
            batches.append(_train(experiment, data, scalars, group, show_epochs))
    return Runs(
        experiment=experiment,
        hyper=scalars,
        data=data,
        seeds=chosen,
        epochs=np.concatenate([batch.epochs for batch in batches]),
        logits=np.concatenate([batch.logits for batch in batches]),
        states=jax.tree.map(lambda *x: jnp.concatenate(x), *(batch.state for batch in batches)),
        diverged={seed: at for batch in batches for seed, at in batch.diverged.items()},
        compile_seconds=sum(batch.compile_seconds for batch in batches),
        together=together,
    )


def _checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds.

    Raises:
        InputError: there is none, or one is repeated or not allowed.
    """
    if not isinstance(seeds, Iterable):
        raise InputError(f"seeds: {shown(seeds)} is not a list of seeds; for one, give [{seeds}]")
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
        InputError: one is not a number.
    """
    if not isinstance(hyper, Hyper):
        raise InputError(f"hyper: {shown(hyper)} is not a Hyper, such as Hyper(learning_rate=0.1)")
    values = {field.name: getattr(hyper, field.name) for field in dataclasses.fields(hyper)}
    for name, value in values.items():
        if np.ndim(value) or not isinstance(value, int | float | np.number | jax.Array):
            raise InputError(f"hyper: {name}: {shown(value)} is not a number; run once for each")
    return type(hyper)(**{name: np.float32(value) for name, value in values.items()})


def _check(experiment: Experiment, data: Images) -> None:
    """Check that an experiment fits the images. Nothing is computed.

    Raises:
        InputError: it does not.
    """
    if not isinstance(experiment, Experiment):
        raise InputError(f"experiment: {shown(experiment)} is not an Experiment(model=...)")
    if not isinstance(data, Images):
        kind = type(data).__name__
        raise InputError(f"data: a {kind} is not allowed; make it by load or from_arrays")
    if experiment.epochs < 1 or experiment.batch_size < 1:
        raise InputError("experiment: epochs and batch_size must be at least 1")
    images = jax.ShapeDtypeStruct((2, *data.test_images.shape[1:]), jnp.uint8)

    def outputs(images: jax.Array) -> tuple[TrainState, jax.Array]:
        state = init_state(experiment, jax.random.key(0), images.shape[1:])
        return state, predict(experiment, state, images)

    state, logits = jax.eval_shape(outputs, images)
    classes, n, batch = len(data.classes), len(data.train_rows), experiment.batch_size
    if logits.shape != (2, classes):
        raise InputError(
            f"experiment: its model returns {logits.shape[-1]} logits an image, and {data.name} "
            f"has {classes} classes; a CNN or ResNet takes num_classes={classes}"
        )
    if jax.tree.leaves(state.batch_stats) and 1 in (batch, n % batch):
        raise InputError(
            f"experiment: batch_size={batch}: of {n:,} training images a batch would be a single "
            "one, which has no variance for BatchNorm"
        )


def _as_trained(experiment: Experiment) -> Experiment:
    """Return an experiment in its fastest form for JAX's default backend, as the commands do."""
    changed: dict[str, Any] = {}
    if not isinstance(experiment.model, FastModel):
        changed["model"] = cast(nn.Module, fast(experiment.model))
    if jax.default_backend() == "cpu":  # CPUs always compute full float32.
        changed["precision"] = None
        if experiment.eval_batch_size == EVAL_BATCH:
            changed["eval_batch_size"] = CPU_EVAL_BATCH
    return dataclasses.replace(experiment, **changed)


class _Batch(NamedTuple):
    """Runs that trained together. Fields as in `Runs`."""

    epochs: np.ndarray
    logits: np.ndarray
    state: TrainState
    diverged: dict[int, Divergence]
    compile_seconds: float


def _train(
    experiment: Experiment,
    data: Images,
    hyper: Hyper,
    seeds: Sequence[int],
    show: Callable[[float], None],
) -> _Batch:
    """Train seeds together, and evaluate them.

    Args:
        experiment, data, hyper, seeds: as in `run`.
        show: called with the number of finished epochs of all runs.
    """
    trained, shape = _as_trained(experiment), data.test_images.shape[1:]
    initial = jax.jit(init_state, static_argnums=(0, 2))
    state = stack_runs([initial(trained, jax.random.key(seed), shape) for seed in seeds])
    stacked = jax.device_put(stack_runs([hyper] * len(seeds)))
    show(0)
    begun = time.perf_counter()
    program = _compiled(trained, data, stacked, state)
    compile_seconds = time.perf_counter() - begun
    config = Config(training=TrainingConfig(epochs=experiment.epochs))
    group = Group(
        tuple(Run(config, Path()) for _ in seeds),
        (),
        program,
        stacked,
        len(data.train_rows),
        Boundary(state, 1, 0, 0.0),
        np.zeros((len(seeds), 0), EPOCH),
    )
    for at in boundaries(program, stacked, group.at, experiment.epochs, SEGMENT):
        group.advance(at)
        part = at.steps / (program.full + 1) if at.metrics is None else 1
        show(len(seeds) * (at.epoch - 1 + part))
        if not group.alive:
            break
    show(len(seeds) * experiment.epochs)
    logits = np.full((len(seeds), len(data.test_labels), len(data.classes)), np.nan, np.float32)
    for i in group.alive:
        one = unstack_run(group.at.state, i)
        _, logits[i], seconds = evaluate_state(data.programs, trained, one, data.dataset)
        compile_seconds += seconds
    return _Batch(
        _with_nan(group, experiment.epochs),
        logits,
        group.at.state,
        {seeds[i]: at for i, at in group.diverged.items()},
        compile_seconds,
    )


def _with_nan(group: Group, epochs: int) -> np.ndarray:
    """Return the history, `EPOCH` (runs, epochs), with NaN from a divergence on."""
    history = np.zeros((len(group.runs), epochs), EPOCH)
    history[:, : group.history.shape[1]] = group.history
    history["epoch"] = np.arange(epochs) + 1
    for i, found in group.diverged.items():
        for name in METRICS:
            history[name][i, found.epoch - 1 :] = np.nan
    return history


def _compiled(
    experiment: Experiment, data: Images, hyper: Hyper, state: TrainState
) -> CompiledEpoch:
    """Return the compiled epoch, from `data.programs` if it is there."""
    known, key = data.programs.epoch, (experiment, len(state.step))
    if key not in known:
        slow = len(state.step) == 1 and slow_layers(experiment, data.test_images.shape[1:])
        if slow:  # A step is a call of its own.
            whole = data.dataset
            host = HostData(whole.train_images, whole.train_labels, data.train_rows)
            known[key] = compile_stream_epoch(experiment, hyper, state, host, data.arrays)
        else:
            known[key] = compile_device_epoch(experiment, hyper, state, data.arrays)
    return known[key]
