"""Initial values from another network: a run's checkpoint, or safetensors of torchvision."""

import contextlib
import dataclasses
import hashlib
import json
import math
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cifar_jax.config.build import build_experiment
from cifar_jax.config.settings import Config
from cifar_jax.core.train import TrainState, init_state
from cifar_jax.errors import UserError
from cifar_jax.inputs import expand_home, is_name
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.locate import find_checkpoints
from cifar_jax.runner.programs import blank_state
from cifar_jax.runner.results import Origin
from cifar_jax.runner.resume import progress_text, read_record
from cifar_jax.runner.torch_names import our_axes, our_layout, our_name
from cifar_jax.runner.transfer import (
    Taken,
    named_leaves,
    own_shapes,
    replaced,
    take,
    tensors_digest,
)

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".npy")
LARGEST_FILE = 4 << 30  # bytes; a ResNet-18 has 45 million
MOST_TENSORS = 10_000
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Source:
    """A network that gives initial values.

    Attributes:
        where: its name in messages.
        digest: SHA-256 in hex, of a file or of a checkpoint's parameters and statistics.
        classes: names of its classes, or None if unknown.
        shapes: of its tensors by our names, in our layout.
        read: returns the tensor of a name, float.
    """

    where: str
    digest: str
    classes: tuple[str, ...] | None
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def source_path(config: Config) -> Path | None:
    """Return the path of a config's source of initial values, or None."""
    text = config.transfer.init_from
    if text in (None, "none"):
        return None
    return expand_home(str(text).replace("{seed}", str(config.training.seed)), "--init-from")


def open_source(path: Path) -> Source:
    """Open a run's newest checkpoint or a safetensors file.

    Raises:
        UserError: it is neither, or cannot be read.
    """
    if path.suffix.lower() in PICKLED:
        raise UserError(
            f"--init-from {path}: pickled weights are not read, because a pickle can run any "
            "program; if you trust the file, convert it with safetensors.torch.save_file"
        )
    if path.is_dir():
        return _open_checkpoint(path)
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"--init-from {path}: is neither a run's directory nor a .safetensors file")
    return open_safetensors(path)


def _open_checkpoint(path: Path) -> Source:
    directory, index = find_checkpoints(path, "--init-from")
    with contextlib.closing(Checkpoints(directory, create=False)) as checkpoints:
        record, unfinished = read_record(checkpoints, index)
        config, classes = record.settings, record.dataset.classes
        if config.model.num_classes != len(classes):
            raise UserError(f"--init-from {directory}: the checkpoint does not name its classes")
        experiment = build_experiment(config)
        state = checkpoints.read_state(blank_state(experiment, record.dataset.image_shape), index)
    tree = {**named_leaves(state.params), **named_leaves(state.batch_stats)}
    tensors = {name: np.asarray(leaf) for name, leaf in tree.items()}
    where = f"{directory} after {progress_text(record.history, unfinished)}"
    shapes = {name: value.shape for name, value in tensors.items()}
    return Source(where, tensors_digest(tensors), classes, shapes, tensors.__getitem__)


class _Header(NamedTuple):
    """SHA-256 of a safetensors file, shape and type of each tensor by name, and its metadata."""

    digest: str
    tensors: dict[str, tuple[tuple[int, ...], str]]
    metadata: dict[str, str]


def _read_header(path: Path, flag: str) -> _Header:
    from safetensors import SafetensorError, safe_open

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            raise UserError(f"{flag} {path}: is not a regular file of at most 4 GiB")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with safe_open(path, framework="numpy") as opened:
            names = list(opened.keys())
            if len(names) > MOST_TENSORS:
                raise UserError(f"{flag} {path}: has {len(names):,} tensors, too many for a ResNet")
            slices = {name: opened.get_slice(name) for name in names}
            tensors = {
                name: (tuple(part.get_shape()), str(part.get_dtype()))
                for name, part in slices.items()
            }
            return _Header(digest, tensors, opened.metadata() or {})
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror})") from None
    except SafetensorError as error:
        raise UserError(f"{flag} {path}: is not a safetensors file ({error})") from None


def class_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the names in `classes`, a JSON list, of a file's metadata; None without such names."""
    try:
        names = json.loads(metadata.get("classes", ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names or not all(map(is_name, names)):
        return None
    return tuple(names)


def open_safetensors(path: Path, flag: str = "--init-from") -> Source:
    """Open a safetensors file. Its tensors are read when they are needed.

    Args:
        path: of the file.
        flag: the user's flag for the path, for messages.

    Raises:
        UserError: it cannot be read, or a tensor is not of floats.
    """
    from safetensors import SafetensorError, safe_open

    header = _read_header(path, flag)
    theirs: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (shape, dtype) in header.tensors.items():
        ours = our_name(name, len(shape))
        if ours is None:
            continue
        if not is_name(name):
            raise UserError(f"{flag} {path}: {name!r} is not the name of a tensor")
        if ours in theirs:
            raise UserError(f"{flag} {path}: {theirs[ours]} and {name} are both {ours}")
        if dtype not in _FLOATS:
            raise UserError(f"{flag} {path}: {name} is of type {dtype}, not a float")
        theirs[ours] = name
        shapes[ours] = tuple(shape[axis] for axis in our_axes(len(shape)))

    def read(ours: str) -> np.ndarray:
        try:
            with safe_open(path, framework="numpy") as opened:
                return our_layout(np.asarray(opened.get_tensor(theirs[ours]), np.float32))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{flag} {path}: cannot be read ({error})") from None

    return Source(str(path), header.digest, class_names(header.metadata), shapes, read)


def _take(source: Source, config: Config, state: TrainState, classes: tuple[str, ...]) -> Taken:
    """Return the tensors that a network takes from a source.

    Raises:
        UserError: no tensor fits, or one has a non-finite value.
    """
    own = own_shapes(state.params, state.batch_stats)
    experiment = build_experiment(config)
    other = source.classes is not None and source.classes != classes
    head: str = experiment.model.HEAD
    taken = take(own, source.shapes, source.read, head if other else None)
    if not taken.values:
        raise UserError(
            f"--init-from {source.where}: nothing in it fits {config.model.name} with norm "
            f"{config.model.norm}: {'; '.join(taken.lines())}"
        )
    for name, value in taken.values.items():
        if not np.isfinite(value).all():
            raise UserError(f"--init-from {source.where}: {name} has values that are not finite")
    return taken


def check_source(
    config: Config, classes: tuple[str, ...], image_shape: tuple[int, ...]
) -> str | None:
    """Check a config's source of initial values. Return its digest, or None without a source.

    Args:
        config: of a run.
        classes: names of the dataset's classes.
        image_shape: of its images, (H, W, C).

    Raises:
        UserError: it cannot be read, or no tensor in it fits the config's network.
    """
    path = source_path(config)
    if path is None:
        return None
    source, experiment = open_source(path), build_experiment(config)
    key = jax.random.key(0)
    _take(
        source,
        config,
        jax.eval_shape(lambda key: init_state(experiment, key, image_shape), key),
        classes,
    )
    return source.digest


def start_from(
    source: Source, config: Config, state: TrainState, classes: tuple[str, ...]
) -> tuple[TrainState, Origin]:
    """Replace the values of an initial state by those of a source, where they fit.

    Returns:
        The new state, and the record of its origin.

    Raises:
        UserError: nothing fits.
    """
    taken = _take(source, config, state, classes)
    origin = Origin(
        source=source.where,
        digest=source.digest,
        tensors_taken=len(taken.values),
        parameters_taken=sum(math.prod(value.shape) for value in taken.values.values()),
        left=tuple(taken.lines()),
    )
    state = dataclasses.replace(
        state,
        params=replaced(state.params, taken.values),
        batch_stats=replaced(state.batch_stats, taken.values),
    )
    return state, origin
