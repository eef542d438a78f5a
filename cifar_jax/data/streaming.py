"""Batches read on the host, for images that do not fit on the device."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cifar_jax.errors import UserError, one_line

# Batches read ahead while the device computes.
PREFETCH = 8
THREADS = 2


def import_grain() -> Any:
    """Import Grain, which only streaming needs.

    Raises:
        UserError: the import fails.
    """
    try:
        import grain
    except Exception as error:  # A library that it loads can raise any type.
        why = one_line(error)
        raise UserError(
            f"--pipeline stream: Grain cannot be imported ({why}); use --pipeline device"
        ) from error
    return grain


class _Batches:
    """Random access to the batches of one epoch, for Grain."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, order: np.ndarray, batch_size: int
    ) -> None:
        self._images, self._labels = images, labels
        self._order, self._batch_size = order, batch_size

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._order[step * self._batch_size : (step + 1) * self._batch_size]
        return self._images[rows], self._labels[rows]


def stream_batches(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of one epoch in order. Grain's threads read ahead.

    Args:
        images: uint8 (N, H, W, C), usually memory-mapped: only a batch's rows are read.
        labels: int32 (N,).
        order: rows to visit, integers (n,).
        batch_size: rows per batch; the last batch may have fewer.

    Yields:
        uint8 (B, H, W, C) and int32 (B,).
    """
    grain = import_grain()
    source: Any = _Batches(images, labels, order, batch_size)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=PREFETCH)
    yield from grain.MapDataset.source(source).to_iter_dataset(options)
