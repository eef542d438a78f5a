"""Load CIFAR-10 with tensorflow-datasets, without TensorFlow.

The sources, in this order: the cache of decoded images; a directory prepared by this project or by
tensorflow-datasets (array_record files); the archive `cifar-10-binary.tar.gz`; the network.
tensorflow_datasets is imported only if the cache lacks the images.
"""

import contextlib
import errno
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from cifar_jax.data.sources import cifar10_archive
from cifar_jax.data.sources.cache import open_or_build
from cifar_jax.data.sources.cifar10_archive import CIFAR10, CLASSES, FILE_NAME, Archive
from cifar_jax.data.sources.contents import IMAGE_SHAPE, Contents, Dataset, Progress, silent
from cifar_jax.errors import MachineError, UserError, one_line, shown
from cifar_jax.failures import FULL
from cifar_jax.inputs import expand_home, read_json
from cifar_jax.storage import remove, sync, temporary_directory

if TYPE_CHECKING:
    import requests

_MANUAL = "downloads/manual"
_PROBE_SECONDS = 3.0
_STALL_SECONDS = 30.0
_SCHEMES = ("https",)  # of the archive's address, and of every redirect
_TFDS = "tensorflow_datasets.core.features"
_FEATURES = (
    f"{_TFDS}.features_dict.FeaturesDict",
    f"{_TFDS}.image_feature.Image",
    f"{_TFDS}.class_label_feature.ClassLabel",
    f"{_TFDS}.text_feature.Text",
)


def data_directory(data_dir: str | Path | None) -> Path:
    """Return `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as tfds does.

    Raises:
        UserError: it is in an unknown home directory.
    """
    if data_dir:
        return expand_home(data_dir, "--data-dir")
    if chosen := os.environ.get("TFDS_DATA_DIR"):
        return expand_home(chosen, "TFDS_DATA_DIR")
    try:
        return Path("~/tensorflow_datasets").expanduser()
    except RuntimeError:
        raise UserError(
            "no home directory to save CIFAR-10 in; name a directory with --data-dir"
        ) from None


@contextlib.contextmanager
def _quiet(progress: Progress) -> Iterator[Progress]:
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


def _session() -> "requests.Session":
    """Return a session without adapters for other schemes than https."""
    import requests

    session = requests.Session()
    https = session.adapters["https://"]
    session.adapters.clear()
    for scheme in _SCHEMES:
        session.mount(f"{scheme}://", https)
    return session


def unreachable(url: str) -> str | None:
    """Return in a few words why the server cannot be reached, or None if it answers.

    Sends one request for the headers. Takes at most about four seconds, even if name resolution
    hangs.
    """
    import requests

    reasons: list[str | None] = []

    def ask() -> None:
        try:
            with _session() as session:
                response = session.head(url, timeout=_PROBE_SECONDS, allow_redirects=True)
        except requests.exceptions.InvalidSchema:
            reasons.append("it leads away from https")
        except requests.RequestException as error:
            timed_out = isinstance(error, requests.Timeout)
            reasons.append("no answer" if timed_out else "no connection")
        else:
            reasons.append(None if response.ok else f"HTTP status {response.status_code}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS + 1)
    return reasons[0] if reasons else "no answer"


def _find_prepared(directory: Path) -> Path | None:
    """Find a prepared CIFAR-10 in array_record files, this project's own first."""
    for name in ("cifar10_binary", "cifar10"):
        for info in sorted(directory.glob(f"{name}/*.*.*/dataset_info.json"), reverse=True):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if read_json(info).get("fileFormat") == "array_record":
                    return info.parent
    return None


def _find_archive(directory: Path, archive: Archive) -> Path | None:
    """Find and check the archive, in `directory` or in its downloads, as tfds does.

    Return None if there is none, or if a damaged one in the downloads can be downloaded again.

    Raises:
        UserError: the file is not the archive.
    """
    for found in (directory / FILE_NAME, directory / _MANUAL / FILE_NAME):
        if found.exists():
            try:
                difference = cifar10_archive.damage(found, archive)
            except OSError as error:
                difference = error.strerror or str(error)
            if difference:
                if found.parent != directory and unreachable(archive.url) is None:
                    return None  # `_download` replaces it.
                raise UserError(
                    f"{found}: not CIFAR-10's archive, or damaged ({difference}); get it from "
                    f"{archive.url}, or remove the file"
                )
            return found
    return None


def _blame(error: Exception) -> type[UserError]:
    """Return `MachineError` for a full disk or too little memory, also if a library wraps it."""
    full = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
    return MachineError if full or isinstance(error, MemoryError) else UserError


def _download(directory: Path, archive: Archive, progress: Progress) -> Path:
    """Download the archive and check it. A failure or stop leaves no file.

    The threads of tfds's downloader would survive Ctrl-C until all 170 MB have arrived.
    """
    target = directory / _MANUAL / FILE_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_directory(target.parent) as temporary:
            part = temporary / FILE_NAME
            with (
                _session() as session,
                session.get(
                    archive.url,
                    stream=True,
                    timeout=_STALL_SECONDS,
                    headers={"Accept-Encoding": "identity"},
                ) as response,
                part.open("wb") as file,
            ):
                response.raise_for_status()
                for block in response.iter_content(1 << 18):
                    file.write(block)
                    if file.tell() > archive.size:
                        raise UserError(f"{archive.url}: sends more than {archive.size} bytes")
                    progress("downloading CIFAR-10", file.tell(), archive.size)
            if difference := cifar10_archive.damage(part, archive):
                raise UserError(
                    f"{archive.url}: the download is not CIFAR-10's archive ({difference})"
                )
            sync(part)
            os.replace(part, target)
    except OSError as error:  # Errors of requests are OSErrors too.
        raise _blame(error)(
            f"CIFAR-10 could not be downloaded to {target.parent} ({one_line(error)})"
        ) from None
    return target


def _arrays(source: Any, split: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels of one tfds data source, in the authors' order if it is recorded."""
    total = len(source)
    images = np.empty((total, *IMAGE_SHAPE), np.uint8)
    labels = np.empty(total, np.int32)
    ids = []
    for index in range(total):
        example = source[index]
        images[index], labels[index] = example["image"], example["label"]
        ids.append(example.get("id", b""))
        if index % 500 == 0:
            progress(f"reading CIFAR-10 {split} images", index, total)
    progress(f"reading CIFAR-10 {split} images", total, total)
    order = np.argsort(np.asarray(ids), kind="stable")
    return images[order], labels[order]


def _check_features(value: Any) -> None:
    """Check the classes that `features.json` names: tfds would import their modules.

    Args:
        value: of `features.json`, in tfds's present or older form.

    Raises:
        ValueError: a class is not one of CIFAR-10's features.
    """
    if isinstance(value, list):
        for item in value:
            _check_features(item)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in ("pythonClassName", "python_class_name", "type") and inner not in _FEATURES:
            raise ValueError(f"features.json names {shown(inner)}, which is not CIFAR-10's")
        if key == "content" and not isinstance(inner, dict):
            raise ValueError("features.json has text instead of features")
        _check_features(inner)


def _read_prepared(prepared: Path, archive: Archive, progress: Progress) -> Contents:
    """Read a prepared directory of array_record files.

    Raises:
        UserError: the directory does not contain all of CIFAR-10.
    """
    arrays: dict[str, Any] = {}
    try:
        import tensorflow_datasets as tfds

        _check_features(read_json(prepared / "features.json"))
        with _quiet(progress) as report:
            builder = tfds.builder_from_directory(prepared)
            names = tuple(builder.info.features["label"].names)
            for split in ("train", "test"):
                images, labels = _arrays(builder.as_data_source(split=split), split, report)
                arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    except MemoryError:
        raise
    except Exception as error:  # tfds and array_record raise many types on damaged files.
        raise UserError(
            f"{prepared}: cannot be read ({one_line(error)}); remove it to prepare it again"
        ) from None
    counts = len(arrays["train_labels"]), len(arrays["test_labels"])
    wanted = 5 * archive.batch, archive.batch
    if names != CLASSES or counts != wanted:
        raise UserError(
            f"{prepared}: not CIFAR-10 ({counts[0]} + {counts[1]} images, not {wanted[0]} + "
            f"{wanted[1]}, or other classes); remove it to prepare it again"
        )
    return Contents(**arrays, classes=CLASSES)


def _prepare(directory: Path, file: Path, archive: Archive, progress: Progress) -> Path:
    """Prepare array_record files in `directory` from the archive. A failure leaves no files."""
    try:
        import tensorflow_datasets as tfds

        from cifar_jax.data.sources.cifar10_builder import Cifar10Binary

        target = directory / Cifar10Binary.name / str(Cifar10Binary.VERSION)
        if target.exists() and _find_prepared(directory) is None:
            remove(target)  # Damaged; tfds would read it instead of preparing it.
        with _quiet(progress) as report:
            builder = Cifar10Binary(
                archive=archive,
                progress=report,
                data_dir=directory,
                file_format="array_record",
            )
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    manual_dir=file.parent, try_download_gcs=False
                )
            )
        prepared = Path(builder.data_dir)
        for partial in prepared.parent.glob("*.incomplete*"):  # of a killed process
            remove(partial)
        return prepared
    except UserError:
        raise
    except Exception as error:  # tfds raises many types.
        if (by_another_process := _find_prepared(directory)) is not None:
            return by_another_process
        raise _blame(error)(
            f"{directory}: CIFAR-10 could not be prepared there ({one_line(error)})"
        ) from None


def _contents(directory: Path, archive: Archive, progress: Progress) -> Contents:
    try:
        os.stat(directory)
    except FileNotFoundError:
        pass  # It will be made.
    except OSError as error:
        raise UserError(f"--data-dir {directory}: cannot be used ({error.strerror})") from None
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--data-dir {directory}: is a file; give its folder")
    prepared = _find_prepared(directory)
    if prepared is not None:
        try:
            return _read_prepared(prepared, archive, progress)
        except UserError:
            # Remove only this project's own, and only if the archive can replace it.
            own = prepared.parent.name == "cifar10_binary"
            if not own or _find_archive(directory, archive) is None:
                raise
            remove(prepared)
    file = _find_archive(directory, archive)
    if file is None:
        cifar10_archive.reject_pickled(directory, "--data-dir")
    if file is None and (reason := unreachable(archive.url)):
        raise UserError(
            f"CIFAR-10 is not in {directory} and cannot be downloaded from "
            f"{urlsplit(archive.url).netloc} ({reason}); get {archive.url} elsewhere and pass "
            "its folder with --data-dir, or use --dataset DIR (an image folder) or "
            "--dataset synthetic"
        )
    file = file or _download(directory, archive, progress)
    return _read_prepared(_prepare(directory, file, archive, progress), archive, progress)


def load(
    root: Path,
    *,
    data_dir: str | Path | None = None,
    archive: Archive = CIFAR10,
    progress: Progress = silent,
) -> Dataset:
    """Open CIFAR-10, 50,000 + 10,000 images in its authors' order.

    Args:
        root: the cache directory.
        data_dir: see `data_directory`; may contain the archive or a prepared dataset. A new one is
            prepared here.
        archive: requirements of the archive.
        progress: of downloading, preparing and reading.

    Raises:
        UserError: CIFAR-10 is not available.
    """
    return open_or_build(
        root,
        f"cifar10-{archive.sha256[:16]}",
        "cifar10",
        lambda: _contents(data_directory(data_dir), archive, progress),
    )
