"""Read and prepare directories of tensorflow-datasets with array_record files, without TensorFlow.

tensorflow_datasets is imported only when it is used.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.data.sources.archives import blame
from cifar_jax.data.sources.contents import Contents, Progress
from cifar_jax.data.sources.spec import Published
from cifar_jax.errors import UserError, one_line, shown
from cifar_jax.inputs import read_json
from cifar_jax.storage import remove

_TFDS = "tensorflow_datasets.core.features"
_FEATURES = (
    f"{_TFDS}.features_dict.FeaturesDict",
    f"{_TFDS}.image_feature.Image",
    f"{_TFDS}.class_label_feature.ClassLabel",
    f"{_TFDS}.text_feature.Text",
    f"{_TFDS}.scalar.Scalar",
    f"{_TFDS}.tensor_feature.Tensor",
    f"{_TFDS}.sequence_feature.Sequence",
    f"{_TFDS}.bounding_boxes.BBoxFeature",
)


@contextlib.contextmanager
def quiet(progress: Progress) -> Iterator[Progress]:
    """Silence tensorflow_datasets. The yielded progress can still write to the terminal."""
    from absl import logging
    from tensorflow_datasets.core.utils import tqdm_utils

    def report(description: str, done: int, total: int, /) -> None:
        with contextlib.redirect_stdout(terminal):
            progress(description, done, total)

    terminal = sys.stdout
    verbosity, bars = logging.get_verbosity(), tqdm_utils._active
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", "Image size .* could be decompression bomb")
        logging.set_verbosity(logging.FATAL)
        tqdm_utils.disable_progress_bar()
        try:
            yield report
        finally:
            logging.set_verbosity(verbosity)
            tqdm_utils.display_progress_bar(bars)


def is_prepared(directory: Path) -> bool:
    """Return whether a directory has a dataset that tfds prepared as array_record files."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = read_json(directory / "dataset_info.json").get("fileFormat")
        return bool(found == "array_record")
    return False


def find_prepared(directory: Path, names: Sequence[str]) -> Path | None:
    """Find a prepared dataset of one of these names in array_record files. The first counts."""
    for name in names:
        for info in sorted(directory.glob(f"{name}/*.*.*/dataset_info.json"), reverse=True):
            if is_prepared(info.parent):
                return info.parent
    return None


def check_features(value: Any) -> None:
    """Check the classes that `features.json` names: tfds would import their modules.

    Args:
        value: of `features.json`, in tfds's present or older form.

    Raises:
        ValueError: a class is not a known feature of tfds.
    """
    if isinstance(value, list):
        for item in value:
            check_features(item)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in ("pythonClassName", "python_class_name", "type") and inner not in _FEATURES:
            raise ValueError(f"features.json names {shown(inner)}, which is not allowed")
        if key == "content" and not isinstance(inner, dict):
            raise ValueError("features.json has text instead of features")
        check_features(inner)


def open_builder(directory: Path) -> Any:
    """Open the tfds builder of a prepared directory, after a check of `features.json`.

    Raises:
        ValueError: see `check_features`.
    """
    import tensorflow_datasets as tfds

    check_features(read_json(directory / "features.json"))
    return tfds.builder_from_directory(directory)


def _arrays(
    source: Any, split: str, progress: Progress, spec: Published, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels of one tfds data source, in the authors' order if it is recorded."""
    total = len(source)
    images = np.empty((total, *spec.shape), np.uint8)
    labels = np.empty(total, np.int32)
    ids = []
    what = f"reading {spec.title} {split} images"
    for index in range(total):
        example = source[index]
        images[index], labels[index] = example["image"], example[label]
        ids.append(example.get("id", b""))
        if index % 500 == 0:
            progress(what, index, total)
    progress(what, total, total)
    order = np.argsort(np.asarray(ids), kind="stable")
    return images[order], labels[order]


def read_prepared(prepared: Path, spec: Published, progress: Progress) -> Contents:
    """Read a prepared directory of array_record files.

    Raises:
        UserError: the directory does not contain all of the dataset.
    """
    arrays: dict[str, Any] = {}
    try:
        with quiet(progress) as report:
            builder = open_builder(prepared)
            features = builder.info.features
            label = spec.label if spec.label in features else "label"
            names = tuple(features[label].names)
            for split in ("train", "test"):
                source = builder.as_data_source(split=split)
                images, labels = _arrays(source, split, report, spec, label)
                arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    except MemoryError:
        raise
    except Exception as error:  # tfds and array_record raise many types on damaged files.
        raise UserError(
            f"{prepared}: cannot be read ({one_line(error)}); remove it to prepare it again"
        ) from None
    counts = len(arrays["train_labels"]), len(arrays["test_labels"])
    if names != spec.classes or counts != spec.counts:
        raise UserError(
            f"{prepared}: not {spec.title} ({counts[0]} + {counts[1]} images, not "
            f"{spec.counts[0]} + {spec.counts[1]}, or other classes); remove it to prepare it again"
        )
    return Contents(**arrays, classes=spec.classes)


def prepare(directory: Path, paths: Sequence[Path], spec: Published, progress: Progress) -> Path:
    """Prepare array_record files in `directory` from a dataset's files. A failure leaves none."""
    names = (spec.own, *spec.prepared)
    try:
        import tensorflow_datasets as tfds

        from cifar_jax.data.sources.builder import NUMBER, make_builder

        target = directory / spec.own / NUMBER
        if target.exists() and find_prepared(directory, names) is None:
            remove(target)  # Damaged; tfds would read it instead of preparing it.
        with quiet(progress) as report:
            builder = make_builder(spec, paths, directory, report)
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        prepared = Path(builder.data_dir)
        for partial in prepared.parent.glob("*.incomplete*"):  # of a killed process
            remove(partial)
        return prepared
    except UserError:
        raise
    except Exception as error:  # tfds raises many types.
        if (by_another_process := find_prepared(directory, names)) is not None:
            return by_another_process
        raise blame(error)(
            f"{directory}: {spec.title} could not be prepared there ({one_line(error)})"
        ) from None
