"""Read SVHN's cropped digits, MATLAB files of format 5 (Netzer et al., 2011).

A file has `X`, uint8 (32, 32, 3, N), and `y`, (N, 1), with the digit; 10 means 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.data.sources.contents import Contents
from cifar_jax.data.sources.spec import Published
from cifar_jax.errors import UserError, one_line


def read(spec: Published, paths: Sequence[Path]) -> Contents:
    """Read the training file and the test file.

    Raises:
        UserError: a file is damaged or has other contents.
    """
    from scipy.io import loadmat

    arrays: list[Any] = []
    for path, count in zip(paths, spec.counts, strict=True):
        try:
            found = loadmat(path, variable_names=["X", "y"])
            images, digits = found["X"], found["y"]
        except MemoryError:
            raise
        except Exception as error:  # scipy raises many types on damaged files.
            raise UserError(
                f"{path}: cannot be read as a MATLAB file ({one_line(error)})"
            ) from None
        if images.dtype != np.uint8 or images.shape != (*spec.shape, count):
            raise UserError(f"{path}: X is {images.dtype} {images.shape}, not SVHN's images")
        if digits.shape != (count, 1) or digits.min() < 1 or digits.max() > 10:
            raise UserError(f"{path}: y has other labels than SVHN's digits 1 to 10")
        arrays += [
            np.ascontiguousarray(images.transpose(3, 0, 1, 2)),
            (digits[:, 0] % 10).astype(np.int32),
        ]
    return Contents(arrays[0], arrays[1], arrays[2], arrays[3], spec.classes)
