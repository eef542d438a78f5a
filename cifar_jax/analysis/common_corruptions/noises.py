"""Noise on images, float32 (N, H, W, 3) from 0 to 1. See `table.py` for the source."""

import numpy as np

from cifar_jax.analysis.common_corruptions.draws import Draws


def gaussian(x: np.ndarray, deviation: float, draws: Draws) -> np.ndarray:
    """Add normal noise with a standard deviation."""
    return x + deviation * draws.normal(*x.shape[1:])


def shot(x: np.ndarray, photons: float, draws: Draws) -> np.ndarray:
    """Count photons: Poisson noise. A white pixel has `photons` on average."""
    return draws.poisson(photons * x) / photons


def impulse(x: np.ndarray, share: float, draws: Draws) -> np.ndarray:
    """Set a share of all values to 0 or 1, with equal probability."""
    at = draws.uniform(0, 1, *x.shape[1:])
    return np.where(at < share / 2, 0, np.where(at < share, 1, x))
