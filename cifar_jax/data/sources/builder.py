"""A published dataset as a tensorflow-datasets builder that needs no TensorFlow.

The extractors and image encoder of tensorflow-datasets' own builders import TensorFlow. This one
reads the published files itself, and encodes PNG with Pillow. This module imports
tensorflow_datasets.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cifar_jax.data.sources.contents import Progress
from cifar_jax.data.sources.spec import Published

NUMBER = "1.0.0"  # version of the prepared files


class _LocalInfo(tfds.core.DatasetInfo):
    """`DatasetInfo` that does not look into tfds's bucket, which lacks this builder."""

    def initialize_from_bucket(self) -> None:
        """Do nothing. The parent would look there and leave an empty temporary directory."""


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of a published dataset. `make_builder` gives it its name.

    It is not registered: `tfds.load("cifar10")` uses tfds's own.
    """

    VERSION = tfds.core.Version(NUMBER)
    RELEASE_NOTES = {NUMBER: "The authors' images, in the authors' order."}  # noqa: RUF012

    def __init__(
        self, spec: Published, paths: Sequence[Path], progress: Progress, **kwargs: Any
    ) -> None:
        """Make a builder.

        Args:
            spec: the dataset.
            paths: of its files, whose checksums are right.
            progress: receives the number of written images.
            **kwargs: for `tfds.core.GeneratorBasedBuilder`: `data_dir`, `file_format`.
        """
        self._spec, self._paths, self._progress = spec, paths, progress
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        spec = self._spec
        size = "x".join(map(str, spec.shape))
        return _LocalInfo(
            builder=self,
            description=(
                f"{spec.title}: {sum(spec.counts)} images of {size} in {len(spec.classes)} classes."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=spec.shape, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(spec.classes)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=spec.homepage,
            citation=spec.citation,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        found = self._spec.read(self._spec, self._paths)
        return {
            "train": self._generate_examples(found.train_images, found.train_labels, 0),
            "test": self._generate_examples(
                found.test_images, found.test_labels, len(found.train_labels)
            ),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, before: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the examples of a split, after `before` images of other splits."""
        total = sum(self._spec.counts)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if index % 500 == 0:
                self._progress(f"preparing {self._spec.title}", before + index, total)
            png = io.BytesIO()
            plain = image[..., 0] if image.shape[-1] == 1 else image
            Image.fromarray(plain).save(png, "PNG", compress_level=1)
            png.seek(0)
            yield index, {"image": png, "label": int(label)}


def make_builder(
    spec: Published, paths: Sequence[Path], directory: Path, progress: Progress
) -> ArchiveBuilder:
    """Make the builder of a dataset that prepares array_record files in `directory`."""

    class Named(ArchiveBuilder, skip_registration=True):  # type: ignore[call-arg]
        name = spec.own

    return Named(spec, paths, progress, data_dir=directory, file_format="array_record")
