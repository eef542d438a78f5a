"""What the parts of an analysis share: images, restored states, logits, features.

Each is made when a part first asks for it, and once. If it cannot be made, the part gets a
`Lacking` with the reason.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.outputs import Outputs, compile_outputs, compute
from cifar_jax.config import tables
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import MachineError, UserError
from cifar_jax.names import CORRUPTION_IMAGES, IN_PYTHON
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.console import Display
from cifar_jax.runner.locate import find_checkpoints
from cifar_jax.runner.moved import Moved
from cifar_jax.runner.prepare import open_dataset, split_rows
from cifar_jax.runner.programs import blank_state
from cifar_jax.runner.resume import read_record
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.definition import build, check_file
from cifar_jax.study.file import ExperimentFile


@dataclass(frozen=True)
class Request:
    """What the user asks the parts for. A part adds its fields here.

    Attributes:
        unknown: names or folders of images that are none of the classes.
        corruption_images: number of test images to corrupt, at most.
        cifar10_c, cifar10_1: directories with the files of CIFAR-10-C and CIFAR-10.1.
        demo: whether the page has the networks.
    """

    unknown: tuple[str, ...] = ()
    corruption_images: int = CORRUPTION_IMAGES
    cifar10_c: Path | None = None
    cifar10_1: Path | None = None
    demo: bool = True


@dataclass(frozen=True, eq=False)
class Shared:
    """What all runs of an analysis share.

    Attributes:
        study: the runs, with their predictions.
        request: of the user.
        file: the study's experiment file; None if it has none, or it was not given.
        moved: where the images are now.
        display: shows progress and notes.
        kept: compiled programs, and what parts keep for the next run.
    """

    study: Study
    request: Request = field(default_factory=Request)
    file: ExperimentFile | None = None
    moved: Moved = field(default_factory=Moved)
    display: Display = field(default_factory=Display)
    kept: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def _found(self) -> Dataset | str:
        """The images of the study, or why they are missing."""
        record = self.study.dataset
        config = self.moved.set_in(tables.from_dict(self.study.config, "config"))
        own = self.file.dataset if self.file else None
        try:
            _, images = open_dataset(config, self.display.progress, (), own)
        except MachineError:
            raise
        except UserError as error:
            return f"its images were not found: {error}"
        finally:
            self.display.end_progress()
        if images.fingerprint != record.fingerprint:
            return (
                f"its images were not found: {images.name} {images.fingerprint[:12]} is not "
                f"{record.name} {record.fingerprint[:12]}"
            )
        return images

    @property
    def images(self) -> Dataset:
        """The images of the study.

        Raises:
            Lacking: they were not found.
        """
        if isinstance(self._found, str):
            raise Lacking(self._found)
        return self._found

    @property
    def found_images(self) -> Dataset | None:
        """The images of the study, or None."""
        return None if isinstance(self._found, str) else self._found

    def experiment(self, run: Run) -> tuple[Experiment, Hyper]:
        """Return the experiment and hyper-parameters of a run.

        Raises:
            Lacking: it is of an experiment file that was not given.
        """
        config = run.results.settings
        if self.study.file == IN_PYTHON:
            raise Lacking("it was trained in Python, so its network is in no file")
        if self.file is None and config.experiment.file is not None:
            raise Lacking(
                f"it needs the experiment file {config.experiment.file}; give it after the "
                "directory"
            )
        check_file(self.file, config, run.directory)
        return build(config, self.file)

    def program(self, run: Run, state: TrainState, features: bool) -> Any:
        """Return the compiled program of an experiment, see `outputs.compile_outputs`."""
        experiment, _ = self.experiment(run)
        key = experiment, features
        if key not in self.kept:
            shape = self.images.test_images.shape[1:]
            self.kept[key] = compile_outputs(experiment, state, shape, features)
        return self.kept[key]


def no_progress(fraction: float) -> None:
    """Ignore the progress."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """One trained run. `run` has labels and logits of the test images without a checkpoint.

    Attributes:
        shared: images and programs.
        run: its results and test predictions.
        progress: a slow part reports the finished fraction of its work.
    """

    shared: Shared
    run: Run
    progress: Callable[[float], None] = no_progress
    _sets: dict[str, Outputs] = field(default_factory=dict)

    @property
    def experiment(self) -> Experiment:
        """Its experiment."""
        return self.shared.experiment(self.run)[0]

    @property
    def hyper(self) -> Hyper:
        """Its hyper-parameters."""
        return self.shared.experiment(self.run)[1]

    @cached_property
    def state(self) -> TrainState:
        """Its state after the last epoch, from its checkpoint.

        Raises:
            Lacking: there is no such checkpoint, or its network cannot be built.
        """
        like = blank_state(self.experiment, self.shared.images.test_images.shape[1:])
        try:
            directory, index = find_checkpoints(self.run.directory)
            with contextlib.closing(Checkpoints(directory, create=False)) as checkpoints:
                record, unfinished = read_record(checkpoints, index)
                state = checkpoints.read_state(like, index)
        except MachineError:
            raise
        except UserError as error:
            raise Lacking(f"its network cannot be restored: {error}") from None
        if unfinished or len(record.history) != len(self.run.results.history):
            raise Lacking("its newest intact checkpoint is not of its last epoch")
        return state

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        return split_rows(self.run.results.settings, self.shared.images)

    @property
    def train_rows(self) -> np.ndarray:
        """Rows of its training images in the dataset's training set, integers (N,)."""
        return self._rows[0]

    @property
    def train_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Images it was trained on, uint8 (N, H, W, C), and labels, int32 (N,)."""
        return self._split(self._rows[0])

    @property
    def val_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Its validation images, uint8 (N, H, W, C), and labels, int32 (N,)."""
        return self._split(self._rows[1])

    def _split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self.shared.images
        return np.asarray(images.train_images[rows]), np.asarray(images.train_labels[rows])

    def outputs(self, name: str, images: np.ndarray, features: bool = False) -> Outputs:
        """Return the outputs of images in evaluation mode, computed once for each name.

        Args:
            name: of the images; "validation", "test" and "train" for those of the dataset.
            images: uint8 (N, H, W, C).
            features: also return features.

        Raises:
            Lacking: the run cannot be restored, or has no features.
        """
        known = self._sets.get(name)
        if known is None or (features and known.features is None):
            program = self.shared.program(self.run, self.state, features)
            self._sets[name] = compute(program, self.state, images)
        return self._sets[name]
