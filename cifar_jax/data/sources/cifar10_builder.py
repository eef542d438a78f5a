"""CIFAR-10 as a tensorflow-datasets builder that needs no TensorFlow.

The tar extractor and image encoder of tensorflow-datasets' own builder import TensorFlow. This
builder reads the archive itself, from the download manager's `manual_dir`, and encodes PNG with
Pillow. This module imports tensorflow_datasets.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from cifar_jax.data.sources import cifar10_archive
from cifar_jax.data.sources.contents import IMAGE_SHAPE, Progress, silent


class _LocalInfo(tfds.core.DatasetInfo):
    """`DatasetInfo` that does not look into tfds's bucket, which lacks this builder."""

    def initialize_from_bucket(self) -> None:
        """Do nothing. The parent would look there and leave an empty temporary directory."""


class Cifar10Binary(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of CIFAR-10. It is not registered: `tfds.load("cifar10")` uses tfds's own."""

    name = "cifar10_binary"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The authors' images, in the authors' order."}  # noqa: RUF012

    def __init__(
        self,
        *,
        archive: cifar10_archive.Archive = cifar10_archive.CIFAR10,
        progress: Progress = silent,
        **kwargs: Any,
    ) -> None:
        """Make a builder.

        Args:
            archive: size, checksum and address of the archive.
            progress: receives the number of written images.
            **kwargs: for `tfds.core.GeneratorBasedBuilder`: `data_dir`, `file_format`.
        """
        self._archive, self._progress = archive, progress
        super().__init__(**kwargs)

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        """Size and checksum that the download manager requires."""
        info = tfds.download.checksums.UrlInfo(
            size=tfds.core.utils.Size(self._archive.size),
            checksum=self._archive.sha256,
            filename=cifar10_archive.FILE_NAME,
        )
        return {self._archive.url: info}

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self,
            description="CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=IMAGE_SHAPE, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(cifar10_archive.CLASSES)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation="Krizhevsky: Learning multiple layers of features from tiny images. 2009.",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        path = Path(dl_manager.download(self._archive.url))
        contents = cifar10_archive.read(path, self._archive)
        total = len(contents.train_labels) + len(contents.test_labels)

        def examples(split: str, before: int) -> Iterator[tuple[int, dict[str, Any]]]:
            images = getattr(contents, f"{split}_images")
            labels = getattr(contents, f"{split}_labels")
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                if index % 500 == 0:
                    self._progress("preparing CIFAR-10", before + index, total)
                png = io.BytesIO()
                Image.fromarray(image).save(png, "PNG", compress_level=1)
                png.seek(0)
                yield index, {"image": png, "label": int(label)}

        return {"train": examples("train", 0), "test": examples("test", len(contents.train_labels))}

    def _generate_examples(self, **kwargs: Any) -> Any:
        raise NotImplementedError("the examples come from `_split_generators`")
