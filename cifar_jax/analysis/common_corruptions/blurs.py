"""Blur images, float32 (N, H, W, C) from 0 to 1. See `table.py` for the source."""

import math

import numpy as np
from scipy import ndimage

from cifar_jax.analysis.common_corruptions.draws import Draws


def disk(radius: float, sigma: float) -> np.ndarray:
    """Return the kernel of a lens out of focus, float64 (n, n), with sum 1.

    It is a disk with a radius in pixels, smoothed by 3x3 samples of a Gaussian with `sigma`.
    """
    reach = math.ceil(radius) + 1
    offsets = np.arange(-reach, reach + 1)
    inside = np.hypot(offsets, offsets[:, None]) <= radius
    gauss = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    gauss /= gauss.sum()
    return ndimage.convolve(inside / inside.sum(), np.outer(gauss, gauss), mode="constant")


def defocus(x: np.ndarray, parameters: tuple[float, float], draws: Draws) -> np.ndarray:
    """Blur by a disk: its radius, and the deviation of its smooth edge, in pixels."""
    kernel = disk(*parameters)
    return ndimage.convolve(x, kernel[None, :, :, None], mode="mirror")


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian with a standard deviation in pixels. The edge pixels are repeated."""
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def glass(x: np.ndarray, parameters: tuple[float, int], draws: Draws) -> np.ndarray:
    """Blur, move pixels by up to one pixel up and left, blur again.

    The paper exchanges pixels. The authors' program copies: it makes each exchange in place, so
    the second pixel keeps its value. We copy too.

    Args:
        parameters: deviation of the blur in pixels, and number of passes.
    """
    sigma, passes = parameters
    x = gaussian(x, sigma)
    n, height, width, _ = x.shape
    image = np.arange(n)
    for _ in range(passes):
        up, left = np.moveaxis(draws.integers(0, 2, height, width, 2), -1, 0)
        for row in range(height - 1, 1, -1):
            for column in range(width - 1, 1, -1):
                source = row - up[:, row, column], column - left[:, row, column]
                x[:, row, column] = x[image, *source]
    return gaussian(x, sigma)


def along(x: np.ndarray, radius: float, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """Blur along a line, as ImageMagick's motion blur does.

    A pixel becomes a weighted mean of 2 * radius + 1 pixels in one direction. The weights are
    half a Gaussian. Offsets are rounded to whole pixels. The edge pixels are repeated.

    Args:
        radius, sigma: in pixels.
        degrees: direction for each image, (N,), clockwise from the right.
    """
    taps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-0.5 * (taps / sigma) ** 2)
    angle = np.radians(degrees)[:, None]
    down = np.ceil(taps * np.sin(angle) - 0.5).astype(int)
    right = np.ceil(taps * np.cos(angle) - 0.5).astype(int)
    n, height, width, _ = x.shape
    image, blurred = np.arange(n)[:, None, None], np.zeros_like(x)
    for tap, weight in enumerate(weights / weights.sum()):
        rows = np.clip(np.arange(height) + down[:, tap, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, tap, None], 0, width - 1)
        blurred += np.float32(weight) * x[image, rows[:, :, None], columns[:, None, :]]
    return blurred


def motion(x: np.ndarray, parameters: tuple[float, float], draws: Draws) -> np.ndarray:
    """Blur along a random direction within 45 degrees of the horizontal. See `along`."""
    return along(x, *parameters, draws.uniform(-45, 45))


def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Return the matrix that enlarges the middle of a line of `size` pixels, (size, size).

    Linear interpolation, with the first pixel on the first and the last on the last.
    """
    inner = math.ceil(size / factor)
    begin = (size - inner) // 2
    enlarged = ndimage.zoom(np.eye(inner), (factor, 1), order=1)
    cut = (len(enlarged) - size) // 2
    matrix = np.zeros((size, size), np.float32)
    matrix[:, begin : begin + inner] = enlarged[cut : cut + size]
    return matrix


def enlarge(x: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the middle of images (N, H, W, C) to their full size."""
    rows, columns = (zoom_matrix(size, factor) for size in x.shape[1:3])
    # Two products by BLAS; einsum would not use it.
    wide = columns @ x
    return np.moveaxis(rows @ np.moveaxis(wide, 2, 1), 1, 2)


def zoom(x: np.ndarray, end: float, draws: Draws) -> np.ndarray:
    """Average the image, counted twice, and its enlargements by 1.01, 1.02, ... below `end`."""
    factors = np.arange(1, end, 0.01)
    total = x + x
    for factor in factors[1:]:
        total += enlarge(x, factor)
    return total / (len(factors) + 1)
