"""Use what was trained: a run's network, or the seeds of a study's arm, predict images."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_jax.analysis.fitted import (
    Fitted,
    energy,
    fit,
    measured_temperature,
    pool,
    read_fitted,
    write_fitted,
)
from cifar_jax.config.build import for_device
from cifar_jax.config.settings import Config
from cifar_jax.data.sources import decode
from cifar_jax.data.sources.contents import FolderOptions
from cifar_jax.errors import InputError, MachineError, UserError, shown
from cifar_jax.runner.console import Display
from cifar_jax.runner.moved import Moved
from cifar_jax.runner.prepare import open_dataset, split_rows
from cifar_jax.runner.programs import unstack_run
from cifar_jax.study.file import ExperimentFile, load_file
from cifar_jax.study.network import Network, find_runs, open_images, restore
from cifar_jax.study.onnx_network import AnyNetwork, class_order, is_network_file, open_file

if TYPE_CHECKING:
    from cifar_jax.library.training import Runs


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """What networks answer for N images.

    Attributes:
        classes: names of the classes.
        logits: of each network, float32 (networks, N, classes).
        fitted: temperature and threshold.
    """

    classes: tuple[str, ...]
    logits: np.ndarray
    fitted: Fitted

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities, float64 (N, classes). An ensemble's are pooled first."""
        from scipy import special

        found: np.ndarray = special.softmax(
            pool(self.logits) / (self.fitted.temperature or 1.0), axis=1
        )
        return found

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The most probable class of each image, integers (N,)."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def names(self) -> list[str]:
        """Name of the most probable class of each image."""
        return [self.classes[label] for label in self.labels]

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the most probable class of each image, float64 (N,)."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def energy(self) -> np.ndarray:
        """Energy score, float64 (N,): larger for images like the training images."""
        return energy(self.logits)

    @functools.cached_property
    def unlike(self) -> np.ndarray | None:
        """Whether an image is unlike the training images, bool (N,); None without a threshold.

        Then its energy score is below that of 95 % of the validation images.
        """
        if self.fitted.threshold is None:
            return None
        return self.energy < self.fitted.threshold

    @functools.cached_property
    def votes(self) -> np.ndarray:
        """The class that each network alone answers, integers (networks, N)."""
        return self.logits.argmax(axis=2)

    @functools.cached_property
    def agree(self) -> np.ndarray:
        """Number of networks that alone give the answer, integers (N,)."""
        return (self.votes == self.labels).sum(axis=0)

    @functools.cached_property
    def disagreement(self) -> np.ndarray:
        """Mutual information of answer and network in nats, float64 (N,), 0 for one network.

        Entropy of the mean probabilities minus the mean entropy (Houlsby et al. 2011, arXiv
        1112.5745, equation 2), of the probabilities as trained.
        """
        from scipy import special

        each = special.softmax(self.logits.astype(np.float64), axis=2)
        of_mean = special.entr(each.mean(axis=0)).sum(axis=1)
        found: np.ndarray = of_mean - special.entr(each).sum(axis=2).mean(axis=0)
        return np.maximum(found, 0.0)  # rounding can go below

    def top(self, image: int, count: int) -> list[tuple[str, float]]:
        """Return the most probable classes of an image with their probabilities, best first."""
        row = self.probabilities[image]
        best = np.argsort(-row, kind="stable")[:count]
        return [(self.classes[label], float(row[label])) for label in best]

    def __len__(self) -> int:
        return self.logits.shape[1]

    def __repr__(self) -> str:
        shown_first = [
            f"{name} {100 * confidence:.1f} %"
            for name, confidence in zip(self.names[:5], self.confidence[:5], strict=True)
        ]
        more = ["..."] if len(self) > 5 else []
        return f"<{len(self):,} predictions: {', '.join([*shown_first, *more])}>"


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """Trained networks that answer together.

    Attributes:
        networks: one, or several seeds of an arm as an ensemble.
        fitted: temperature and threshold, of validation images.
        notes: a line for what the user must know, such as missing images.
    """

    networks: tuple[AnyNetwork, ...]
    fitted: Fitted
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.networks[0].classes

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each network; empty for networks of files."""
        records = [network.record for network in self.networks if network.record]
        return tuple(record.settings.training.seed for record in records)

    @property
    def side(self) -> int:
        """Width and height of the images that the networks take, in pixels."""
        return self.networks[0].image_shape[0]

    @property
    def options(self) -> FolderOptions:
        """How image files are read: as the run's own files, and resized."""
        record = self.networks[0].record
        white = record.settings.data.white_level if record else None
        return FolderOptions(resize=True, white_level=white, size=self.side)

    def __repr__(self) -> str:
        what = f"{len(self.networks)} networks" if len(self.networks) > 1 else "network"
        return f"<predictor: {what}, {len(self.classes)} classes, {self.side}x{self.side} pixels>"

    def predict(self, images: np.ndarray | str | Path | Sequence[str | Path]) -> Predictions:
        """Predict images.

        Args:
            images: uint8 (N, H, W, 3) or (H, W, 3) of the networks' size; or paths of image files
                of any size. Files are rotated by their EXIF orientation. The largest centred
                square is resized (Lanczos).

        Raises:
            InputError: the array has another shape or dtype, or there is no image.
            UserError: a file cannot be read.
        """
        pixels = images if isinstance(images, np.ndarray) else self._read(images)
        if pixels.ndim == 3:
            pixels = pixels[None]
        shape = self.networks[0].image_shape
        if pixels.shape[1:] != shape or pixels.dtype != np.uint8 or not len(pixels):
            size = ", ".join(map(str, shape))
            raise InputError(
                f"images: is {pixels.dtype} {pixels.shape}; allowed: uint8 (N, {size}), N > 0"
            )
        logits = np.stack([network.logits(pixels) for network in self.networks])
        return Predictions(self.classes, logits, self.fitted)

    def _read(self, paths: str | Path | Sequence[str | Path]) -> np.ndarray:
        several = [paths] if isinstance(paths, str | Path) else paths
        if not isinstance(several, Sequence):
            raise InputError(f"images: {shown(paths)} is neither an array nor a path")
        names = [str(path) for path in several]
        found, _ = decode.decode_files("", names, self.options, lambda done: None)
        return found


def load_predictor(
    directory: str | Path,
    arm: str | None = None,
    *,
    file: str | Path | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    display: Display | None = None,
) -> Predictor:
    """Restore the networks of a run, of all finished seeds of a study's arm, or of a file.

    The first use fits temperature and threshold on the validation images. It keeps them in
    `predict.json`, in the directory of the run or the arm. Without these images the confidences are
    as trained; a note says so.

    Args:
        directory: of a run or a study; or a `.safetensors` or `.onnx` file, see
            `study.network_files` and `study.onnx_network`.
        arm: of the study.
        file: path of the experiment file, if there is one. It is run.
        dataset, data_dir: where the images are now, as `--dataset` and `--data-dir`. For a network
            file, the dataset names its classes.
        display: shows progress; by default on standard output.

    Raises:
        UserError: there is no trained network, or the file is not the run's.
    """
    moved, display = Moved(dataset, data_dir), display or Display()
    if is_network_file(Path(directory)):
        return _of_file(Path(directory), arm, moved, display)
    paths = find_runs(Path(directory), arm)
    loaded = load_file(Path(file)) if file else None
    networks = tuple(restore(path, loaded, how="by --file") for path in paths)
    where = paths[0] if len(paths) == 1 else paths[0].parent
    notes = [f"{line}; predicting with the one before" for of in networks for line in of.damaged]
    notes += [f"{of.path}: was trained only to {of.progress}" for of in networks if _is_short(of)]
    fitted = read_fitted(where, tuple(network.digest for network in networks))
    if fitted is None:
        try:
            fitted = _fit(networks, paths, loaded, moved, display)
        except MachineError:
            raise
        except UserError as error:
            fitted = Fitted(networks=())
            notes.append(f"confidences are as trained, not calibrated: {error}")
        else:
            notes += _keep(where, fitted)
    return Predictor(networks, fitted, tuple(notes))


def runs_predictor(runs: "Runs") -> Predictor:
    """Return the seeds of runs in memory as a predictor, without those that diverged.

    Temperature and threshold are fitted on the runs' validation images.

    Raises:
        InputError: all diverged, or there are no validation images.
    """
    alive = [index for index, seed in enumerate(runs.seeds) if seed not in runs.diverged]
    if not alive or not len(runs.data.val_labels):
        raise InputError("predictor: every run diverged, or there are no validation images")
    experiment, shape = for_device(runs.experiment), runs.data.test_images.shape[1:]
    networks = []
    for index in alive:
        state = unstack_run(runs.states, index)
        variables = dict(zip(("params", "batch_stats"), experiment.evaluated(state), strict=True))
        where = Path(f"seed{runs.seeds[index]}")
        networks.append(Network(where, runs.data.classes, experiment, shape, variables))
    logits = np.stack([network.logits(runs.data.val_images) for network in networks])
    digests = tuple(network.digest for network in networks)
    return Predictor(tuple(networks), fit(digests, logits, runs.data.val_labels))


def _of_file(path: Path, arm: str | None, moved: Moved, display: Display) -> Predictor:
    """Return the predictor of a network file. Without validation images nothing is fitted."""
    if arm is not None:
        raise UserError(f"--arm {arm}: {path} is a file, which has no arms")
    network = open_file(path, "--run")
    if moved.dataset is not None:
        _, images = open_dataset(moved.set_in(Config()), display.progress)
        display.end_progress()
        order = class_order(network, images.classes, "--run")
        names = [images.classes[order.index(label)] for label in range(len(order))]
        network = dataclasses.replace(network, classes=tuple(names))
    note = f"confidences are as trained, not calibrated: {path} has no validation images"
    return Predictor((network,), Fitted(networks=()), (note,))


def _keep(where: Path, fitted: Fitted) -> list[str]:
    """Write `predict.json`. Return a line if it cannot be written, as in a read-only directory."""
    try:
        write_fitted(where, fitted)
    except OSError as error:
        return [f"{where}: temperature and threshold cannot be kept ({error.strerror})"]
    return []


def _is_short(network: Network) -> bool:
    """Return whether a run has epochs left to train."""
    record = network.record
    return record is not None and len(record.history) < record.settings.training.epochs


def _fit(
    networks: tuple[Network, ...],
    paths: Sequence[Path],
    file: ExperimentFile | None,
    moved: Moved,
    display: Display,
) -> Fitted:
    """Fit temperature and threshold on the validation images of the networks' runs.

    Raises:
        UserError: the images are not found, or there are none for validation.
    """
    record = networks[0].record
    assert record is not None
    images = open_images(networks[0], file, moved, display)
    _, rows = split_rows(record.settings, images)
    if not len(rows):
        raise UserError("there are no validation images to fit the temperature on")
    measured = None
    if len(paths) == 1:
        measured = measured_temperature(paths[0], images.fingerprint)
    pixels, labels = np.asarray(images.train_images[rows]), np.asarray(images.train_labels[rows])
    logits = np.stack([network.logits(pixels) for network in networks])
    return fit(tuple(network.digest for network in networks), logits, labels, measured)
