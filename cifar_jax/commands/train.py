"""The commands `train` and `evaluate`."""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from cifar_jax.config.combinations import check_all
from cifar_jax.config.settings import Config
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError
from cifar_jax.names import SOURCE
from cifar_jax.runner.console import Display, class_lines, duration
from cifar_jax.runner.devices import check_batch, data_mesh
from cifar_jax.runner.directory import check_workdir, holds_run, lock_directory
from cifar_jax.runner.evaluation import Evaluation, evaluate_logits
from cifar_jax.runner.group import Run
from cifar_jax.runner.hooks import Interrupted
from cifar_jax.runner.moved import Moved
from cifar_jax.runner.prepare import Prepared, open_dataset, run_directory, split_dataset
from cifar_jax.runner.processes import is_first, joined
from cifar_jax.runner.results import Finished, Results
from cifar_jax.runner.resume import read_recorded
from cifar_jax.runner.session import Options, Session
from cifar_jax.runner.training import estimate, train_group
from cifar_jax.storage import write_text
from cifar_jax.study.collect import divergence_line, read_divergence
from cifar_jax.study.definition import check_file, make_run
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.file_checks import Problem, check_arm
from cifar_jax.study.network import open_images, restore

# Seconds that the figures of a run take on a slow machine, for the estimate of the time left.
DRAWING = 2.0


class Diverged(Exception):
    """The loss is no longer finite; the message says where and what to try."""


def open_data(
    config: Config,
    display: Display,
    train_examples: Sequence[int | None] = (),
    images: Dataset | None = None,
    mesh: Mesh | None = None,
) -> Prepared:
    """Load and split the data, and print its notes. A banner tells of substitute images.

    Args:
        config: of a run or study.
        display: shows progress and notes.
        train_examples: those of a sweep, see `sizes.fit_defaults`.
        images: of the experiment file; they replace those of the config.
        mesh: of devices that each get a copy; None for one device.
    """
    begun = time.perf_counter()
    opened = open_dataset(config, display.progress, train_examples, images)
    prepared = split_dataset(*opened, mesh)
    prepared = dataclasses.replace(prepared, seconds=time.perf_counter() - begun)
    display.end_progress()
    if prepared.dataset.notice:
        display.banner(prepared.dataset.notice)
    for note in prepared.notes:
        display.say(note)
    return prepared


def say_evaluation(evaluation: Evaluation, dataset: Dataset, display: Display) -> None:
    """Print loss, accuracy, and the accuracy of each class."""
    total = len(dataset.test_labels)
    display.say(
        f"test loss {evaluation.loss:.4f}, test accuracy {100 * evaluation.accuracy:.2f} % "
        f"({evaluation.correct:,} of {total:,}) on {dataset.name}"
    )
    for line in class_lines(dataset.classes, evaluation.per_class_accuracy.tolist()):
        display.say(line)


def _memory(results: Finished) -> str:
    """Describe the known memory peaks."""
    peaks = {
        "of memory": results.peak_memory_bytes,
        "of the device's": results.peak_device_memory_bytes,
    }
    return "".join(f", at most {peak / 2**20:,.0f} MiB {of}" for of, peak in peaks.items() if peak)


def train_run(
    config: Config,
    *,
    file: ExperimentFile | None = None,
    workdir: Path | None = None,
    display: Display | None = None,
    data_parallel: int = 1,
    figures: bool = False,
    **options: Unpack[Options],
) -> Finished:
    """Train a run, evaluate it on the test set, and write its files.

    Args:
        config: of the run.
        file: its experiment file. `config.experiment` names the arm.
        workdir: the run's directory, by default `run_directory`.
        display: shows progress.
        data_parallel: number of devices that divide each batch.
        figures: whether to draw its figures after its evaluation is printed.
        options: see `Session`. By default a run does not resume.

    Returns:
        The run's `results.json`.

    Raises:
        UserError: wrong input, before anything is written.
        Interrupted: a signal stopped it; the message says what is saved.
        Diverged: the loss is no longer finite.
    """
    display = (display or Display()) if is_first() else Display(Console(quiet=True))
    resume = options.setdefault("resume", False)
    check_all([config.training])
    if workdir is not None:
        _check_workdir(workdir, resume)
    mesh = data_mesh(data_parallel)
    prepared = open_data(config, display, (), file.dataset if file else None, mesh)
    config, dataset = prepared.config, prepared.dataset
    check_batch(mesh, config.training.batch_size)
    if file is not None:
        shape, n_train = dataset.train_images.shape[1:], len(prepared.train_rows)
        check_arm(file, config, Problem(shape, len(dataset.classes), n_train))
    workdir = workdir or run_directory(config, dataset)
    _check_workdir(workdir, resume)
    before = read_divergence(workdir)
    if before is not None and not options.get("debug_nans"):
        raise UserError(
            f"--resume: {divergence_line(before, workdir)}; it would diverge again; choose another "
            "--workdir and a lower --lr, or add --debug-nans to find the operation"
        )
    session = Session(prepared, display, data_seconds=prepared.seconds, **options)
    try:
        with joined(Interrupted):
            results = _train(session, make_run(config, file, workdir), file, figures)
    except Interrupted as stop:
        kept = holds_run(workdir)
        how = " Resume with the same command and --resume." if kept else ""
        raise Interrupted(f"{stop}{how}", stop.status) from None
    if not isinstance(results, Finished):
        raise Diverged(f"{divergence_line(results.diverged, workdir)}; try a lower --lr")
    display.say(
        f"trained in {duration(results.train_seconds)}, compiled in "
        f"{results.compile_seconds:.1f} s ({100 * results.compile_share:.1f} %)"
        f"{_memory(results)}; everything is in {workdir}"
    )
    source = [str(file.path)] if file else []
    command = ["python", "-m", "cifar_jax.main", "report", *source, "--workdir", str(workdir)]
    display.say(f"a page with figures: {shlex.join(command)}")
    if dataset.notice:
        display.banner(dataset.notice)
    return results


def _check_workdir(workdir: Path, resume: bool) -> None:
    """Check a run's directory, see `check_workdir`, in the process that writes in it."""
    if is_first():
        check_workdir(workdir, resume)


def _train(session: Session, run: Run, file: ExperimentFile | None, figures: bool) -> Results:
    """Train a run in its directory, locked. Only the first process writes there."""
    workdir = run.workdir
    if file is not None and (recorded := read_recorded(workdir)) is not None:
        check_file(file, recorded.config, workdir)
    if not is_first():
        return train_group(session, [run])[0]
    with lock_directory(workdir):
        check_workdir(workdir, session.resume)
        if file is not None:
            write_text(workdir / SOURCE, file.source)
        remaining = estimate(session, [run], DRAWING if figures else 0.0)
        (results,) = train_group(session, [run], remaining)
        if isinstance(results, Finished):
            _say_results(workdir, results, session.prepared.dataset, session.display)
            if figures:
                results = _draw(workdir, results, session.display)
    return results


def _say_results(workdir: Path, results: Finished, dataset: Dataset, display: Display) -> None:
    """Print a run's evaluation."""
    labels = np.asarray(dataset.test_labels)
    with np.load(workdir / results.predictions, allow_pickle=False) as predictions:
        say_evaluation(evaluate_logits(predictions["logits"], labels), dataset, display)


def _draw(workdir: Path, results: Finished, display: Display) -> Finished:
    """Draw the figures of a run. Return its results."""
    from cifar_jax.commands.figures import draw  # Matplotlib is slow to import.

    results, problems = draw(workdir, results)
    for problem in problems:
        display.say(problem)
    return results


def evaluate_run(
    checkpoint: Path,
    *,
    file: ExperimentFile | None = None,
    moved: Moved | None = None,
    display: Display | None = None,
) -> Evaluation:
    """Restore the newest checkpoint of a run and evaluate it on the run's test images.

    Args:
        checkpoint: a run's directory, or the `checkpoints` directory in it.
        file: the run's experiment file, if it has one.
        moved: where the images are now.
        display: shows the result.

    Raises:
        UserError: there is no checkpoint, or the images or the file are not those of the run.
    """
    display = display or Display()
    network = restore(checkpoint, file, "--checkpoint")
    for wrong in network.damaged:
        display.say(f"{wrong}; evaluating the one before")
    images = open_images(network, file, moved or Moved(), display)
    display.say(f"checkpoint after {network.progress} in {network.path}")
    logits = network.logits(np.asarray(images.test_images))
    evaluation = evaluate_logits(logits, np.asarray(images.test_labels))
    say_evaluation(evaluation, images, display)
    return evaluation
