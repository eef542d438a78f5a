"""Read and check `predictions.npz`, the answers of a finished run for the test images."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from cifar_jax.errors import one_line
from cifar_jax.failures import is_lack
from cifar_jax.inputs import read_bytes
from cifar_jax.names import PREDICTIONS, RESULTS
from cifar_jax.runner.results import Damaged, Finished

_LARGEST = 2 << 30  # bytes, unpacked


def read_predictions(workdir: Path, results: Finished) -> dict[str, np.ndarray]:
    """Read a run's predictions.

    Args:
        workdir: the run's directory.
        results: of the run.

    Returns:
        `predicted` and `label`, integers (N,): predicted and true class of each test image.
        `logits`, floats (N, classes).

    Raises:
        Damaged: they cannot be read, or do not fit the results.
    """
    path = workdir / PREDICTIONS
    try:
        # From memory: np.load does not close a damaged file.
        content = io.BytesIO(_read(path, results))
        with zipfile.ZipFile(content) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST:
                raise ValueError("too large")
        with np.load(content, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("predicted", "label", "logits")}
        if not _fits(results, **found):
            raise ValueError(f"its arrays do not fit {RESULTS}")
    # For damaged files, NumPy and zipfile raise many types, even TokenError and MemoryError.
    except Exception as error:
        raise _damaged(path, error) from None
    return found


def check_predictions(workdir: Path, results: Finished) -> None:
    """Check a run's predictions, without unpacking them if their digest is recorded.

    Raises:
        Damaged: see `read_predictions`.
    """
    if results.predictions_sha256 is None:
        read_predictions(workdir, results)
        return
    path = workdir / PREDICTIONS
    try:
        _read(path, results)
    except Exception as error:
        raise _damaged(path, error) from None


def _read(path: Path, results: Finished) -> bytes:
    """Read the file, and check its digest if that is recorded."""
    content = read_bytes(path, _LARGEST)
    if results.predictions_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError(f"{RESULTS} has another digest of it")
    return content


def _damaged(path: Path, error: Exception) -> Exception:
    """Return the error to raise: the same one if the machine lacks something."""
    return error if is_lack(error) else Damaged(f"{path}: cannot be used: {one_line(error)}")


def _fits(results: Finished, predicted: np.ndarray, label: np.ndarray, logits: np.ndarray) -> bool:
    """Return whether predictions have the shapes, types, classes and confusions of results."""
    n, names = results.dataset.n_test, results.dataset.classes
    matrix, classes = results.confusion_matrix, len(names)
    given = [results.per_class_accuracy[name] is not None for name in names]
    return (
        n > 0
        and predicted.shape == label.shape == (n,)
        and logits.shape == (n, classes)
        and predicted.dtype.kind == label.dtype.kind == "i"
        and logits.dtype.kind == "f"
        and bool(np.isfinite(logits).all())
        and all(int(x.min()) >= 0 and int(x.max()) < classes for x in (predicted, label))
        and given == (np.bincount(label, minlength=classes) > 0).tolist()
        and (
            matrix is None
            or np.ravel(matrix).tolist()
            == np.bincount(classes * label + predicted, minlength=classes**2).tolist()
        )
    )
