"""Images for `run`: a named dataset, or your own arrays, in three splits."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from numpy.typing import ArrayLike

from cifar_jax.config.normalisation import parse_channels, statistics
from cifar_jax.config.settings import Config, DataConfig, ModelConfig, TrainingConfig
from cifar_jax.config.sizes import fit_defaults
from cifar_jax.core.train import Data
from cifar_jax.data import dataset as named
from cifar_jax.data.dataset import Dataset, FolderOptions
from cifar_jax.data.sources.contents import Contents, as_dataset
from cifar_jax.data.splits import train_val_split
from cifar_jax.errors import InputError, shown
from cifar_jax.library.progress import progress_bar
from cifar_jax.runner.console import Display
from cifar_jax.runner.prepare import Prepared, split_rows
from cifar_jax.runner.session import Session

Labelled = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled images in three splits: training, validation, test.

    Attributes:
        dataset: all images, with the training and validation images in one array.
        config: of a command with the same images and split.
        train_rows, val_rows: indices of the two splits in that array, integers.
    """

    dataset: Dataset
    config: Config
    train_rows: np.ndarray
    val_rows: np.ndarray

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.dataset.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.dataset.classes

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex of all pixels, labels and class names, before the split."""
        return self.dataset.fingerprint

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on skipped and changed images."""
        return self.dataset.notes

    @functools.cached_property
    def train_images(self) -> np.ndarray:
        """Training images, uint8 (N, H, W, C)."""
        return self.dataset.train_images[self.train_rows]

    @functools.cached_property
    def train_labels(self) -> np.ndarray:
        """Labels of the training images, int32 (N,)."""
        return self.dataset.train_labels[self.train_rows]

    @functools.cached_property
    def val_images(self) -> np.ndarray:
        """Validation images, uint8 (M, H, W, C)."""
        return self.dataset.train_images[self.val_rows]

    @functools.cached_property
    def val_labels(self) -> np.ndarray:
        """Labels of the validation images, int32 (M,)."""
        return self.dataset.train_labels[self.val_rows]

    @property
    def test_images(self) -> np.ndarray:
        """Test images, uint8 (K, H, W, C)."""
        return self.dataset.test_images

    @property
    def test_labels(self) -> np.ndarray:
        """Labels of the test images, int32 (K,)."""
        return self.dataset.test_labels

    @functools.cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, of training pixels in [0, 1], to four decimals; for `Inputs`."""
        return parse_channels(statistics(self.train_images)[0], "mean")

    @functools.cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, like `mean`."""
        return parse_channels(statistics(self.train_images)[1], "std")

    @property
    def arrays(self) -> Data:
        """The training and validation images on JAX's device, for `train`."""
        return self.session.prepared.data

    @functools.cached_property
    def session(self) -> Session:
        """The images on the device, and what `run` compiled for them."""
        host = (self.train_images, self.train_labels, self.val_images, self.val_labels)
        data = Data(*jax.device_put(host))
        prepared = Prepared(self.config, self.dataset, self.train_rows, self.val_rows, data)
        return Session(prepared, Display())

    def __repr__(self) -> str:
        sizes = f"{len(self.train_rows):,} training, {len(self.val_rows):,} validation"
        height, width, channels = self.test_images.shape[1:]
        return (
            f"<{self.name}: {sizes}, {len(self.test_labels):,} test images of "
            f"{height}x{width}x{channels}, {len(self.classes)} classes, "
            f"fingerprint {self.fingerprint[:12]}>"
        )


def load(
    name: str = "auto",
    *,
    classes: Sequence[str] | None = None,
    train_examples: int | None = None,
    val_examples: int | None = None,
    data_dir: str | None = None,
    resize: bool = False,
) -> Images:
    """Open a dataset, and split it as the command line does.

    The first call downloads, decodes or draws the images into the cache. Later ones only open it.

    >>> import cifar_jax as cj
    >>> data = cj.load("synthetic", classes=["disk", "ring"], train_examples=256, val_examples=64)
    >>> data
    <synthetic-2of10: 256 training, 64 validation, 2,000 test images of 32x32x3, 2 classes, ...>
    >>> data.train_images.shape, data.train_images.dtype
    ((256, 32, 32, 3), dtype('uint8'))

    Args:
        name: "cifar10", "cifar100", "cifar100_coarse", "svhn", "mnist", "fashion_mnist" or
            "synthetic"; or the path of an image folder with `train/<class>/*` and
            `test/<class>/*`, of a CSV table, or of a prepared dataset (docs/data.md). "auto" is
            CIFAR-10. If it is not available, it is the synthetic images, with a warning.
        classes: use only these; None for all.
        train_examples: training images; None for all but those of validation.
        val_examples: training images to split off for validation; None for 5,000, at most a fifth.
        data_dir: directory of published datasets.
        resize: in an image folder, resize other images to 32x32.

    Raises:
        UserError: the images cannot be used, or are too few.
    """
    for what, size in (("train_examples", train_examples), ("val_examples", val_examples)):
        if size is not None and size < 1:
            raise InputError(f"{what}={shown(size)}: must be at least 1")
    with progress_bar() as progress:
        dataset = named.load(
            name,
            data_dir=data_dir,
            classes=None if classes is None else ",".join(classes),
            options=FolderOptions(resize),
            progress=progress,
        )
    if dataset.notice:
        warnings.warn(dataset.notice, stacklevel=2)
    if name == "auto":
        name = dataset.name.partition("-")[0]
    config = DataConfig(
        dataset=name,
        data_dir=data_dir,
        classes=None if classes is None else ",".join(classes),
        train_examples=train_examples,
        val_examples=DataConfig.val_examples if val_examples is None else val_examples,
        resize=resize,
    )
    return _split(dataset, config)


def _split(dataset: Dataset, config: DataConfig) -> Images:
    """Split a dataset as the command line does."""
    whole = Config(data=config, training=TrainingConfig(batch_size=1))
    whole, _ = fit_defaults(whole, len(dataset.train_labels))
    whole = replace(whole, model=ModelConfig(num_classes=len(dataset.classes)))
    return Images(dataset, whole, *split_rows(whole, dataset))


def _checked(pair: Labelled, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return copies of images, uint8 (N, H, W, C), and labels, int32 (N,).

    Raises:
        InputError: a type or shape is wrong.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"{what}: must be a pair (images, labels)")
    images, labels = map(np.array, pair)
    if images.dtype != np.uint8:
        raise InputError(f"{what} images: have type {images.dtype}, must be uint8, 0 to 255")
    if images.ndim != 4 or not images.size:
        raise InputError(f"{what} images: have shape {images.shape}, must be (N, H, W, C)")
    if labels.dtype.kind not in "iu":
        raise InputError(f"{what} labels: have type {labels.dtype}, must be integers")
    if labels.shape != images.shape[:1]:
        wanted = f"({len(images)},), one label per image"
        raise InputError(f"{what} labels: have shape {labels.shape}, must be {wanted}")
    return images, labels


def _in_split_order(
    train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray], seed: int
) -> list[np.ndarray]:
    """Join training and validation arrays so that `train_val_split` separates them again."""
    n, n_val = len(train[1]) + len(val[1]), len(val[1])
    rows, val_rows = train_val_split(n, n_val, seed)
    joined = []
    for first, second in zip(train, val, strict=True):
        both = np.empty((n, *first.shape[1:]), first.dtype)
        both[rows], both[val_rows] = first, second
        joined.append(both)
    return joined


def from_arrays(
    train: Labelled,
    test: Labelled,
    *,
    val: Labelled | int | None = None,
    classes: Sequence[str] | None = None,
    name: str = "images",
) -> Images:
    """Make a dataset of your own arrays. It copies them.

    >>> import cifar_jax as cj, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> pixels, labels = rng.integers(0, 256, (120, 16, 16, 3), np.uint8), np.arange(120) % 3
    >>> train, test = (pixels[:100], labels[:100]), (pixels[100:], labels[100:])
    >>> cj.from_arrays(train, test, name="noise")
    <arrays-noise: 80 training, 20 validation, 20 test images of 16x16x3, 3 classes, ...>

    Args:
        train: images, uint8 (N, H, W, C), and labels, integers (N,), from 0.
        test: such a pair.
        val: such a pair, or a number of training images to split off. They are random, but the
            same for every seed of `run`. None for 5,000, at most a fifth.
        classes: names of the classes; None for their numbers.
        name: of the dataset; it gets the prefix "arrays-".

    Raises:
        InputError: an array has a wrong type or shape, or a label has no class.
    """
    parts = {"train": _checked(train, "train"), "test": _checked(test, "test")}
    if val is not None and not isinstance(val, int | np.integer):
        parts["val"] = _checked(val, "val")
    shape = parts["train"][0].shape[1:]
    names = tuple(
        map(str, range(1 + max(int(labels.max()) for _, labels in parts.values())))
        if classes is None
        else classes
    )
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"classes: {shown(names)}: must be two or more different names")
    for what, (images, labels) in parts.items():
        if images.shape[1:] != shape:
            raise InputError(f"{what} images: are {images.shape[1:]}, those of train are {shape}")
        if labels.min() < 0 or labels.max() >= len(names):
            wrong = int(labels.min() if labels.min() < 0 else labels.max())
            raise InputError(
                f"{what} labels: {wrong} is not a class; allowed: 0 to {len(names) - 1}"
            )
    config = DataConfig(dataset=f"arrays-{name}")
    both = list(parts["train"])
    if "val" in parts:
        both = _in_split_order(parts["train"], parts["val"], config.split_seed)
        config = DataConfig(dataset=config.dataset, val_examples=len(parts["val"][1]))
    elif val is not None:
        config = DataConfig(dataset=config.dataset, val_examples=int(val))  # type: ignore[arg-type]
        if not 1 <= config.val_examples < len(both[1]):
            raise InputError(f"val={val}: must be from 1 to {len(both[1]) - 1}")
    arrays = (
        both[0],
        both[1].astype(np.int32),
        parts["test"][0],
        parts["test"][1].astype(np.int32),
    )
    return _split(as_dataset(config.dataset, Contents(*arrays, names)), config)
