"""The loss landscape along the gradient, during the first epochs of training.

Santurkar et al. 2018, arXiv 1805.11604, section 3.1 and figure 4. At chosen steps, take steps of
several sizes along the gradient of the batch's loss. Measure there, on the same batch, in training
mode, with the same augmentation and dropout:

- The loss. Its range over the step sizes says how much it varies. It is also large if the loss
  falls fast.
- How far the gradient moves, in the l2 norm. The smaller, the better it predicts ("gradient
  predictiveness").
- The effective beta-smoothness: the largest ratio of that change to the distance.

The step sizes are fixed multiples of the step's learning rate, the same for every arm.

Training is repeated from its beginning with the recorded settings, and measured on the way. It is
deterministic, so any finished run can be measured. Checkpoints of the measured steps would save
these epochs. But they would need a flag before training, and a state for each step.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Struct

from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.landscape_plots import landscape_figure
from cifar_jax.analysis.loss_surface import Along, along_gradient
from cifar_jax.analysis.numbers import (
    Number,
    Quantity,
    means_sentence,
    numbers_table,
    verdict_sentence,
)
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState, epoch_order, init_state, step_loss
from cifar_jax.kernels import jit
from cifar_jax.report.section import Section
from cifar_jax.runner.prepare import split_dataset
from cifar_jax.runner.pretrained import source_path
from cifar_jax.runner.programs import CompiledEpoch, stack_runs, unstack_run
from cifar_jax.runner.session import Session, compiled_epoch
from cifar_jax.runner.streamed import HostData
from cifar_jax.study.collect import Run

EPOCHS = 10  # that are repeated, at most
ROUNDING = 1e-6  # relative, of losses that are recorded in float32
POINTS = 10  # measured steps of an epoch
FACTORS = tuple(float(f) for f in np.geomspace(0.5, 4, 7))  # step size / learning rate


class Point(Struct, frozen=True):
    """What was measured before one step. None: not finite.

    Attributes:
        step: counted from 0.
        learning_rate: of this step.
        gradient_norm: l2.
        losses: in nats, for each of `FACTORS`.
        changes: l2 distance of the gradient from that of the step, for each of `FACTORS`.
        smoothness: effective beta-smoothness.
    """

    step: int
    learning_rate: float
    gradient_norm: float | None
    losses: tuple[float | None, ...]
    changes: tuple[float | None, ...]
    smoothness: float | None


class Landscape(Struct, frozen=True):
    """The landscape of one run.

    Attributes:
        epochs: that were repeated.
        steps_per_epoch: of training.
        points: measured, by step.
        difference: largest relative difference of an epoch's training loss from the recorded one.
    """

    epochs: int
    steps_per_epoch: int
    points: tuple[Point, ...]
    difference: float | None


class Replay(NamedTuple):
    """Training from its beginning.

    Attributes:
        program: of an epoch; takes states with an axis of runs, of length 1.
        hyper, state: of the run, with that axis.
        host: its training images.
        measure: takes hyper-parameters and state of the run, without the axis, and a batch;
            returns learning rate, `Along` and smoothness.
    """

    program: CompiledEpoch
    hyper: Hyper
    state: TrainState
    host: HostData
    measure: Callable[..., tuple[jax.Array, Along, jax.Array]]


def compile_measure(
    experiment: Experiment, n: int
) -> Callable[..., tuple[jax.Array, Along, jax.Array]]:
    """Return the jitted `Replay.measure` of an experiment with `n` training images."""

    def measure(
        hyper: Hyper, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, Along, jax.Array]:
        def loss(params: Any) -> jax.Array:
            return step_loss(params, experiment, hyper, n, state, images, labels)[0]

        rate = jnp.asarray(experiment.learning_rate(hyper, n)(state.step))
        steps = rate * jnp.array(FACTORS)
        with jax.default_matmul_precision(experiment.precision):
            found = along_gradient(loss, state.params, steps)
        return rate, found, found.smoothness(steps)

    return jit(measure)


def _session(shared: Shared, run: Run) -> Session:
    """Return images and programs of the data that a run was trained on."""
    config = run.results.settings
    key = "landscape", config.data
    if key not in shared.kept:
        shared.kept[key] = Session(split_dataset(config, shared.images), shared.display)
    session: Session = shared.kept[key]
    return session


def begin(trained: TrainedRun) -> Replay:
    """Return a run at its beginning, with its compiled programs.

    Raises:
        Lacking: it began with the values of another network.
    """
    shared, run = trained.shared, trained.run
    config, experiment = run.results.settings, trained.experiment
    if source_path(config) is not None:
        raise Lacking("it began with the values of another network, and is not trained again")
    session = _session(shared, run)
    host = session.prepared.host
    key, shape = jax.random.key(run.seed), shared.images.train_images.shape[1:]
    seen = session.prepared.first_images(experiment.init_images)
    first = jax.jit(init_state, static_argnums=(0, 2))(experiment, key, shape, seen)
    state, hyper = stack_runs([first]), jax.device_put(stack_runs([trained.hyper]))
    program = compiled_epoch(session, experiment, hyper, state).result()
    measured = "landscape", experiment, len(host.rows)
    if measured not in shared.kept:
        shared.kept[measured] = compile_measure(experiment, len(host.rows))
    return Replay(program, hyper, state, host, shared.kept[measured])


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _point(replay: Replay, state: TrainState, rows: np.ndarray) -> Point:
    """Measure before one step, on the batch of these rows."""
    one = unstack_run(state, 0)
    images, labels = replay.host.images[rows], replay.host.labels[rows]
    rate, found, smoothness = replay.measure(unstack_run(replay.hyper, 0), one, images, labels)
    return Point(
        step=int(one.step),
        learning_rate=float(rate),
        gradient_norm=_finite(found.gradient_norm),
        losses=tuple(map(_finite, np.asarray(found.losses))),
        changes=tuple(map(_finite, np.asarray(found.changes))),
        smoothness=_finite(smoothness),
    )


def repeat(replay: Replay, epochs: int, batch: int) -> Iterator[Point | float]:
    """Train again. Yield each measured point, and at the end of an epoch its training loss.

    Args:
        replay: of the run.
        epochs: number of epochs.
        batch: images in a step.
    """
    program, hyper, state, host, _ = replay
    order = jax.jit(epoch_order, static_argnums=2)
    marks = np.unique(np.linspace(0, program.full, POINTS + 1).astype(int))
    for epoch in range(epochs):
        rows = host.rows[np.asarray(order(unstack_run(state, 0).key, epoch, len(host.rows)))]
        for start, stop in zip(marks[:-1].tolist(), marks[1:].tolist(), strict=True):
            yield _point(replay, state, rows[start * batch : (start + 1) * batch])
            state = program.advance(hyper, state, start, stop)
        state, metrics = program.finish(hyper, state)
        yield float(metrics.train_loss[0])


def measure(trained: TrainedRun) -> Landscape:
    """Repeat the first epochs of a run, and measure on the way."""
    replay, experiment = begin(trained), trained.experiment
    epochs = min(EPOCHS, experiment.epochs)
    total = epochs * (min(POINTS, replay.program.full) + 1)
    points: list[Point] = []
    losses: list[float] = []
    for done, found in enumerate(repeat(replay, epochs, experiment.batch_size), 1):
        if isinstance(found, Point):
            points.append(found)
        else:
            losses.append(found)
        trained.progress(done / total)
    recorded = np.array(trained.run.curve("train_loss")[:epochs])
    return Landscape(
        epochs=epochs,
        steps_per_epoch=replay.program.steps,
        points=tuple(points),
        difference=_finite(np.max(np.abs(np.array(losses) / recorded - 1))),
    )


RANGE = Quantity("loss_range", "range of the loss along the gradient", 1, 4, "nats", "", 0.0)
CHANGE = Quantity("gradient_change", "change of the gradient", 1, 3, "", "", 0.0)
SMOOTHNESS = Quantity("smoothness", "effective beta-smoothness", 1, 2, "", "", 0.0)


def _mean(values: list[tuple[float | None, ...]], reduce: Callable[..., Any]) -> float | None:
    """Return the mean over points of a reduction over step sizes; None if one is not finite."""
    if any(value is None for row in values for value in row):
        return None
    return float(np.mean(reduce(np.array(values, float), axis=1)))


def numbers(record: Landscape) -> list[Number]:
    """Return the means over the measured steps."""
    return [
        Number(RANGE, _mean([point.losses for point in record.points], np.ptp)),
        Number(CHANGE, _mean([point.changes for point in record.points], np.max)),
        Number(SMOOTHNESS, _mean([(point.smoothness,) for point in record.points], np.max)),
    ]


def _method(findings: Findings[Landscape]) -> str:
    """Say what was measured, and how well training was repeated."""
    record = findings.runs[0].record
    low, high = min(FACTORS), max(FACTORS)
    text = (
        f"Mean over {len(record.points)} steps of the first {record.epochs} epochs, with "
        f"{len(FACTORS)} step sizes from {low:g} to {high:g} times the learning rate, on the batch "
        "of the step, in training mode (Santurkar et al. 2018, figure 4). A step is proportional "
        "to the gradient, so the range is also large if the loss falls fast, and small for a "
        "network that hardly learns. The smoothness is per distance."
    )
    different = [found.record.difference for found in findings.runs]
    if any(found is None for found in different):
        return text
    worst = max(found for found in different if found is not None)
    words = "up to rounding" if worst < ROUNDING else f"up to {100 * worst:.2g} %"
    return f"{text} The repeated training has the recorded training losses, {words}."


def section(findings: Findings[Landscape]) -> Section:
    """Return the section: does an arm have a smoother loss along the gradient?"""
    study = findings.study
    size, change, smoothness = findings.compared
    words = "has a loss that varies less along the gradient", "has a loss that varies more"
    sentences = [
        means_sentence(study, size),
        verdict_sentence(study, size, *words),
        means_sentence(study, smoothness),
        verdict_sentence(study, smoothness, "has a smoother loss", "has a rougher loss"),
        _method(findings),
    ]
    note = "The range is over the step sizes; the change is the largest over them."
    return Section(
        PART.title,
        tuple(sentence for sentence in sentences if sentence),
        (landscape_figure(findings),),
        (numbers_table(study, [size, change, smoothness], "Landscape along the gradient", note),),
    )


PART = Part(
    name="landscape",
    title="Loss landscape along the gradient",
    record=Landscape,
    measure=measure,
    numbers=numbers,
    section=section,
)
