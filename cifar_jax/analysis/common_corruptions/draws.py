"""Random numbers of several images, each with its own generator."""

from collections.abc import Sequence

import numpy as np


class Draws:
    """Random numbers for N images. Those of an image do not depend on the others."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._generators = generators

    def normal(self, *shape: int) -> np.ndarray:
        """Return standard normal numbers, float32 (N, *shape)."""
        return np.stack([g.standard_normal(shape, np.float32) for g in self._generators])

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Return uniform numbers from `low` to `high`, float64 (N, *shape)."""
        return np.stack([g.uniform(low, high, shape) for g in self._generators])

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Return uniform integers from `low` to `high - 1`, int64 (N, *shape)."""
        return np.stack([g.integers(low, high, shape) for g in self._generators])

    def poisson(self, mean: np.ndarray) -> np.ndarray:
        """Return Poisson numbers, int64, with means of shape (N, ...)."""
        return np.stack([g.poisson(m) for g, m in zip(self._generators, mean, strict=True)])

    def __len__(self) -> int:
        return len(self._generators)
