"""Find and restore trained networks, and compute their logits.

For example the logits of a batch of images, by the first seed of an arm, on plain Flax layers:

    network = restore(find_runs(study, "batch")[0])
    logits = forward(network.plain, network.variables, images)
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cifar_jax.core.train import Experiment
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError
from cifar_jax.kernels import FastModel, jit
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.console import Display
from cifar_jax.runner.directory import holds_run, holds_study
from cifar_jax.runner.locate import find_checkpoints
from cifar_jax.runner.moved import Moved
from cifar_jax.runner.prepare import open_dataset
from cifar_jax.runner.programs import blank_state
from cifar_jax.runner.results import Diverged, Finished, RunRecord, Unfinished, read_results
from cifar_jax.runner.resume import progress_text, read_record
from cifar_jax.runner.transfer import named_leaves, tensors_digest
from cifar_jax.study.definition import build, check_file
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.rebuild import find_plan
from cifar_jax.study.record import Plan, run_path

FEW = 8  # At most as many images are one small batch, so that one image is not computed as many.


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network: a run's at its newest intact checkpoint, or that of a file.

    Attributes:
        path: of its checkpoints, or of the file.
        classes: names of the classes, in the order of the logits.
        experiment: as this device trains it, see `build.for_device`.
        image_shape: of an image, (H, W, C).
        variables: "params" and "batch_stats" as evaluation uses them, trees of float arrays.
        record: the run's config, images and history; None for a file.
        unfinished: steps of the next epoch; None at the end of an epoch.
        damaged: a line for each newer checkpoint, which is damaged.
    """

    path: Path
    classes: tuple[str, ...]
    experiment: Experiment
    image_shape: tuple[int, ...]
    variables: dict[str, Any]
    record: RunRecord | None = None
    unfinished: Unfinished | None = None
    damaged: tuple[str, ...] = ()

    @property
    def progress(self) -> str:
        """How far a run was trained, such as "epoch 7 and 120 steps". Not for a file."""
        assert self.record is not None
        return progress_text(self.record.history, self.unfinished)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its variables, in hex."""
        leaves = named_leaves(self.variables)
        return tensors_digest({name: np.asarray(leaf) for name, leaf in leaves.items()})

    @property
    def plain(self) -> Experiment:
        """The experiment with the plain Flax layers of its model, which any platform can run."""
        model = self.experiment.model
        plain = model.model if isinstance(model, FastModel) else model
        return dataclasses.replace(self.experiment, model=plain)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images, uint8 (N, H, W, C), N > 0: float32 (N, classes)."""
        size = FEW if len(images) <= FEW else self.experiment.eval_batch_size
        return in_batches(partial(compiled(self.experiment), self.variables), images, size)


def in_batches(
    logits: Callable[[np.ndarray], np.ndarray | jax.Array], images: np.ndarray, size: int
) -> np.ndarray:
    """Return the logits of images, computed in batches of one size: float32 (N, classes).

    Args:
        logits: computes those of a batch, float (size, classes). No image changes another's.
        images: (N, H, W, C), N > 0.
        size: images in a batch. Repeats of the last image fill the last batch.
    """
    rows = (np.arange(start, start + size) for start in range(0, len(images), size))
    found = [logits(images[np.minimum(of, len(images) - 1)]) for of in rows]
    return np.concatenate([np.asarray(part, np.float32) for part in found])[: len(images)]


def forward(
    experiment: Experiment, variables: dict[str, Any], images: jax.Array, **options: Any
) -> Any:
    """Return logits in evaluation mode, float (B, classes), of one batch.

    Args:
        experiment: its model, inputs and precision count.
        variables: "params" and "batch_stats" of the model.
        images: uint8 (B, H, W, C).
        options: of the model's `apply`.
    """
    with jax.default_matmul_precision(experiment.precision):
        x = experiment.inputs.evaluate(images)
        return experiment.model.apply(variables, x, train=False, **options)


@functools.cache
def compiled(experiment: Experiment) -> Callable[[dict[str, Any], np.ndarray], jax.Array]:
    """Return `forward` of an experiment, to be compiled at its first calls."""
    program: Callable[..., jax.Array] = jit(partial(forward, experiment))
    return program


_like = functools.cache(blank_state)  # The seeds of an arm share it.


def restore(
    path: Path,
    file: ExperimentFile | None = None,
    flag: str = "--run",
    how: str = "after the command",
) -> Network:
    """Restore the network of a run. Its images are not needed.

    Args:
        path: the run's directory, or the directory `checkpoints` in it.
        file: the run's experiment file, if it has one.
        flag, how: say how the user gives the path and the file, for messages.

    Raises:
        UserError: there is no intact checkpoint, its record is incomplete, or the file is not the
            run's.
    """
    directory, index = find_checkpoints(path, flag)
    with contextlib.closing(Checkpoints(directory, create=False)) as checkpoints:
        record, unfinished = read_record(checkpoints, index)
        check_file(file, record.settings, directory, how)
        if file is None and record.settings.model.num_classes is None:
            raise UserError(f"{directory}: the record lacks config.model.num_classes")
        shape = record.dataset.image_shape
        experiment, _ = build(record.settings, file)
        state = checkpoints.read_state(_like(experiment, shape), index)
        damaged = tuple(checkpoints.damaged())
    params, batch_stats = experiment.evaluated(state)
    variables = {"params": params, "batch_stats": batch_stats}
    classes = record.dataset.classes
    return Network(directory, classes, experiment, shape, variables, record, unfinished, damaged)


def open_images(
    network: Network, file: ExperimentFile | None, moved: Moved, display: Display
) -> Dataset:
    """Open the images of a run.

    Args:
        network: of the run.
        file: the run's experiment file, if it has one.
        moved: where the images are now.
        display: shows progress.

    Raises:
        UserError: they are not found, or are not the run's.
    """
    assert network.record is not None
    own, wanted = file.dataset if file else None, network.record.dataset
    config = moved.set_in(network.record.settings)
    try:
        _, images = open_dataset(config, display.progress, (), own)
    finally:
        display.end_progress()
    if images.fingerprint != wanted.fingerprint:
        raise UserError(
            f"{network.path}: was trained on {wanted.name} {wanted.fingerprint[:12]}, not on "
            f"{images.name} {images.fingerprint[:12]}"
        )
    return images


def find_runs(directory: Path, arm: str | None = None, flag: str = "--run") -> list[Path]:
    """Return the directories of a run, or of the finished runs of a study's arm, by seed.

    Args:
        directory: of a run or a study.
        arm: name of the arm; of the directory in the study, with a sweep. None for a run, and for
            a study of one arm.
        flag: the user's flag for the directory, for messages.

    Raises:
        UserError: there is neither, no such arm, or no finished run.
    """
    if not holds_study(directory):
        if not holds_run(directory):
            raise UserError(f"{flag} {directory}: holds neither a run nor a study")
        if arm is not None:
            raise UserError(f"--arm {arm}: {directory} is a single run, which has no arms")
        if isinstance(read_results(directory), Diverged):
            raise UserError(f"{flag} {directory}: this run diverged, so its network is of no use")
        return [directory]
    names, seeds = _cells(find_plan(directory)[0])
    if arm is None and len(names) > 1:
        raise UserError(f"{flag} {directory}: is a study; name an arm: --arm {' or '.join(names)}")
    if arm is not None and arm not in names:
        raise UserError(f"--arm {arm}: {directory} has no such arm; allowed: {', '.join(names)}")
    paths = [run_path(directory, arm or names[0], seed) for seed in seeds]
    found = [path for path in paths if isinstance(read_results(path), Finished)]
    if not found:
        raise UserError(f"{directory / (arm or names[0])}: holds no finished run")
    return found


def _cells(plan: Plan) -> tuple[list[str], tuple[int, ...]]:
    """Return the directories of a study's arms, one for each swept value, and its seeds."""
    arms, sweep = plan.grid_arms, plan.sweep
    if sweep is not None:
        arms = tuple(
            dataclasses.replace(arm, field=sweep.field, value=value)
            for arm in arms
            for value in sweep.values
        )
    return [arm.directory for arm in arms], plan.seeds
