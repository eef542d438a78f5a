"""Read IDX files, the format of MNIST and Fashion-MNIST (LeCun, Cortes, Burges, 1998).

A gzipped file begins with two zero bytes, a type (8: uint8) and the number of axes. Then come the
length of each axis, as big-endian uint32, and the values by rows.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.data.sources.contents import Contents
from cifar_jax.data.sources.spec import Published, check_labels
from cifar_jax.errors import UserError


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an IDX file of uint8 values with a known shape.

    Raises:
        UserError: it has another type or shape, or is damaged.
    """
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    length = int(np.prod(shape))
    try:
        with gzip.open(path) as file:
            content = file.read(len(header) + length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a gzip file ({error})") from None
    if content[: len(header)] != header or len(content) != len(header) + length:
        wanted = "x".join(map(str, shape))
        raise UserError(f"{path}: is not an IDX file of {wanted} bytes")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read(spec: Published, paths: Sequence[Path]) -> Contents:
    """Read training images and labels, then test images and labels.

    Raises:
        UserError: a file is damaged, or a label has no class.
    """
    arrays: list[Any] = []
    for split, count in enumerate(spec.counts):
        images = read_idx(paths[2 * split], (count, *spec.shape[:2]))
        labels = read_idx(paths[2 * split + 1], (count,)).astype(np.int32)
        check_labels(paths[2 * split + 1], labels, spec)
        arrays += [images[..., None], labels]
    return Contents(arrays[0], arrays[1], arrays[2], arrays[3], spec.classes)
