"""Open any dataset that tensorflow-datasets prepared as array_record, without TensorFlow.

It needs the features `image` (uint8, one or three channels) and `label` (of a class). Training
images can stay in their files: `RecordImages` decodes only the rows that are read.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cifar_jax.data.sources.cache import NotCached, only_cached, open_or_build, safe_name
from cifar_jax.data.sources.contents import (
    PLAIN,
    Contents,
    Dataset,
    FolderOptions,
    Progress,
    silent,
)
from cifar_jax.data.sources.prepared import open_builder, quiet
from cifar_jax.errors import UserError, one_line

_STREAMED = "training images stay in their files, so equal images are not looked for"


@dataclasses.dataclass(frozen=True, eq=False)
class RecordImages:
    """Images in files of records, read by row. It is indexed like an array.

    Attributes:
        sources: of tfds, one a split; their rows follow each other.
        shape: (N, H, W, C).
        resize: crop other images to their centred square and resize it.
        progress: receives the end of each slice that is read.
    """

    sources: tuple[Any, ...]
    shape: tuple[int, int, int, int]
    resize: bool = False
    progress: Progress = silent
    dtype = np.dtype(np.uint8)
    ndim = 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Decode rows: uint8 (n, H, W, C), or (H, W, C) of a single one.

        Raises:
            UserError: an image is damaged or has another size.
        """
        if isinstance(rows, int | np.integer):
            return self._one(int(rows))
        numbers = np.arange(len(self))[rows]
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for at, row in enumerate(numbers):
            images[at] = self._one(int(row))
        if isinstance(rows, slice) and len(numbers):
            self.progress("reading images", int(numbers[-1]) + 1, len(self))
        return images

    def _one(self, row: int) -> np.ndarray:
        at = row
        for source in self.sources:
            if at < len(source):
                break
            at -= len(source)
        try:
            image = np.asarray(source[at]["image"])
        except MemoryError:
            raise
        except Exception as error:  # tfds and array_record raise many types on damaged files.
            raise UserError(f"record {at}: cannot be read ({one_line(error)})") from None
        height, width, channels = self.shape[1:]
        if image.shape == self.shape[1:]:
            return image
        if not self.resize:
            size = "x".join(map(str, image.shape))
            raise UserError(
                f"record {at}: its image is {size}, but {height}x{width}x{channels} is needed; "
                "--resize allows resizing"
            )
        plain = Image.fromarray(image[..., 0] if channels == 1 else image)
        fitted = np.asarray(ImageOps.fit(plain, (width, height), Image.Resampling.LANCZOS))
        return fitted.reshape(self.shape[1:])


def _split_names(builder: Any, options: FolderOptions, where: str) -> dict[str, str]:
    """Return the names of the dataset's splits by ours: train, test and maybe val.

    Raises:
        UserError: a split is missing.
    """
    wanted = {"train": "train", "test": options.test_split}
    if options.val_split is not None:
        wanted["val"] = options.val_split
    known = sorted(builder.info.splits)
    for name in wanted.values():
        if name not in known:
            raise UserError(
                f"{where}: has no split {name}, but {', '.join(known)}; --test-split and "
                "--val-split choose others"
            )
    if len(set(wanted.values())) < len(wanted):
        raise UserError(f"{where}: --test-split and --val-split must be two splits besides train")
    return wanted


def _image_shape(builder: Any, first: np.ndarray, options: FolderOptions, where: str) -> Any:
    """Return (H, W, C) of the images.

    Raises:
        UserError: the features are not an image of one or three channels and a class.
    """
    from tensorflow_datasets import features as kinds

    found = builder.info.features
    image, label = (dict(found).get(name) for name in ("image", "label"))
    right = isinstance(image, kinds.Image) and isinstance(label, kinds.ClassLabel)
    if not right or first.dtype != np.uint8 or first.shape[-1] not in (1, 3):
        raise UserError(
            f"{where}: needs the features image (uint8, 1 or 3 channels) and label (a class); it "
            f"has {', '.join(found)}"
        )
    size = (options.size, options.size) if options.resize else first.shape[:2]
    return (*size, first.shape[-1])


def _labels(builder: Any, split: str) -> np.ndarray:
    """Read the labels of a split, int32 (N,), without decoding its images."""
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split=split, decoders=skip)
    return np.fromiter((source[row]["label"] for row in range(len(source))), np.int32)


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A prepared dataset: its builder, the names of its splits, and its images by split."""

    builder: Any
    splits: dict[str, str]
    images: dict[str, RecordImages]

    def read(self, stream: bool) -> Contents:
        """Read labels and images, with the training images in memory or, streamed, in files."""
        labels = {ours: _labels(self.builder, name) for ours, name in self.splits.items()}
        train: Any = self.images["train"]
        return Contents(
            train if stream else train[:],
            np.concatenate([labels[split] for split in ("train", "val") if split in labels]),
            self.images["test"][:],
            labels["test"],
            tuple(self.builder.info.features["label"].names),
            (_STREAMED,) if stream else (),
            n_val=len(labels.get("val", ())),
        )


def _open(directory: Path, options: FolderOptions, progress: Progress) -> _Opened:
    builder = open_builder(directory)
    splits = _split_names(builder, options, str(directory))
    sources = {ours: builder.as_data_source(split=name) for ours, name in splits.items()}
    if not all(map(len, sources.values())):
        raise UserError(f"{directory}: a split has no images")
    shape = _image_shape(builder, sources["train"][0]["image"], options, str(directory))

    def images(*names: str) -> RecordImages:
        chosen = tuple(sources[name] for name in names if name in sources)
        return RecordImages(chosen, (sum(map(len, chosen)), *shape), options.resize, progress)

    return _Opened(builder, splits, {"train": images("train", "val"), "test": images("test")})


@contextlib.contextmanager
def _reading(directory: Path, progress: Progress) -> Iterator[Progress]:
    """Silence tfds, see `quiet`, and turn its errors into a `UserError`."""
    try:
        with quiet(progress) as report:
            yield report
    except (UserError, MemoryError):
        raise
    except Exception as error:  # tfds and array_record raise many types on damaged files.
        raise UserError(f"{directory}: cannot be read ({one_line(error)})") from None


def _key(directory: Path, options: FolderOptions) -> str:
    """Return a digest that changes when a file of the dataset changes."""
    digest = hashlib.sha256(f"{options}".encode())
    for path in sorted(directory.iterdir()):
        status = path.stat()
        digest.update(os.fsencode(path))
        digest.update(f" {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def load(
    directory: str | Path,
    root: Path,
    *,
    options: FolderOptions = PLAIN,
    progress: Progress = silent,
) -> Dataset:
    """Open a prepared directory, such as ~/tensorflow_datasets/eurosat/rgb/2.0.0.

    Args:
        directory: with `dataset_info.json`, `features.json` and array_record files.
        root: the cache directory.
        options: of splits and sizes. With `stream`, training images stay in their files; only their
            labels and fingerprint are cached.
        progress: of reading.

    Raises:
        UserError: the dataset cannot be used.
    """
    directory = Path(os.path.expanduser(directory)).resolve()
    # The name above the version, which begins with a digit: "rgb" of eurosat/rgb/2.0.0.
    part = next(p for p in (*directory.parts[:-1][::-1], "images") if not re.match(r"\d", p))
    name = f"tfds-{safe_name(part)}"
    where = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    entry = f"{name}-{where}-{_key(directory, options)}"
    if options.stream and only_cached.get():
        raise NotCached  # tensorflow_datasets is too slow to import for this.

    def opened() -> _Opened:
        with _reading(directory, progress) as report:
            return _open(directory, options, report)

    def build(found: _Opened) -> Contents:
        with _reading(directory, silent):
            return found.read(options.stream)

    if not options.stream:
        return open_or_build(root, entry, name, lambda: build(opened()))
    found = opened()
    return open_or_build(
        root, entry, name, lambda: build(found), train_images=found.images["train"]
    )
