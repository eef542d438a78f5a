"""Weather on images, float32 (N, H, W, 3) from 0 to 1. See `table.py` for the source."""

from typing import NamedTuple

import numpy as np

from cifar_jax.analysis.common_corruptions import blurs
from cifar_jax.analysis.common_corruptions.draws import Draws

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luminance of red, green, blue; ITU-R BT.601
# Of the authors' five photographs of frost: mean colour, and range of mean brightness.
FROST_TINT = np.array([0.89, 1.02, 1.09], np.float32)
FROST_BRIGHTNESS = 0.48, 0.81
FROST_NEEDLES = 5, 3  # radius and deviation of a blur in pixels, see `blurs.along`
FROST_CONTRAST = 0.08  # standard deviation within 32x32 pixels


def plasma(size: int, decay: float, draws: Draws) -> np.ndarray:
    """Return random clouds, float32 (N, size, size), from 0 to 1.

    By the diamond-square algorithm with wrapped edges (Fournier, Fussell & Carpenter,
    Communications of the ACM 25 (1982), 371-384).

    Args:
        size: a power of 2.
        decay: the noise falls by its square from one scale to the next half as large.
    """
    step, noise = size, 1.0
    grid = np.zeros((len(draws), size, size))

    def between(*four: np.ndarray) -> np.ndarray:
        return sum(four) / 4 + draws.uniform(-noise, noise, *four[0].shape[1:])

    while step > 1:
        half = step // 2
        corner = grid[:, ::step, ::step]
        right, below = np.roll(corner, -1, 2), np.roll(corner, -1, 1)
        middle = between(corner, right, below, np.roll(right, -1, 1))
        grid[:, half::step, half::step] = middle
        grid[:, ::step, half::step] = between(corner, right, middle, np.roll(middle, 1, 1))
        grid[:, half::step, ::step] = between(corner, below, middle, np.roll(middle, 1, 2))
        step, noise = half, noise / decay**2
    low, high = grid.min((1, 2), keepdims=True), grid.max((1, 2), keepdims=True)
    return ((grid - low) / (high - low)).astype(np.float32)


def _clouds(x: np.ndarray, decay: float, draws: Draws) -> np.ndarray:
    """Return `plasma` of the size of the images, (N, H, W, 1)."""
    height, width = x.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    return plasma(size, decay, draws)[:, :height, :width, None]


def fog(x: np.ndarray, parameters: tuple[float, float], draws: Draws) -> np.ndarray:
    """Add clouds, and darken so that the brightest possible pixel stays.

    Args:
        parameters: brightness of the clouds, and their `decay`.
    """
    brightness, decay = parameters
    most = x.max((1, 2, 3), keepdims=True)
    return (x + brightness * _clouds(x, decay, draws)) * most / (most + brightness)


def frost_texture(x: np.ndarray, draws: Draws) -> np.ndarray:
    """Return bluish ice crystals for each image, float32 (N, H, W, 3).

    Needles in three random directions: the largest of three motion blurs of noise. They replace
    the authors' photographs, and have about the same colours and contrast.
    """
    height, width = x.shape[1:3]
    layers = [
        blurs.along(draws.normal(height, width, 1), *FROST_NEEDLES, draws.uniform(0, 360))
        for _ in range(3)
    ]
    needles = blurs.gaussian(np.max(layers, axis=0), 0.7)
    mean, deviation = needles.mean((1, 2, 3), keepdims=True), needles.std((1, 2, 3), keepdims=True)
    brightness = draws.uniform(*FROST_BRIGHTNESS, 1, 1, 1).astype(np.float32)
    grey = brightness + FROST_CONTRAST * (needles - mean) / deviation
    return np.clip(grey * FROST_TINT, 0, 1)


def frost(x: np.ndarray, parameters: tuple[float, float], draws: Draws) -> np.ndarray:
    """Add frost. `parameters` are the weights of the image and of the frost."""
    weight, frost_weight = parameters
    return weight * x + frost_weight * frost_texture(x, draws)


class Snow(NamedTuple):
    """Parameters of `snow`."""

    mean: float  # of the normal noise that flakes are made of
    deviation: float
    zoom: float  # enlargement of the flakes
    threshold: float  # noise below it is no flake
    blur: tuple[float, float]  # radius and deviation in pixels, see `blurs.along`
    image: float  # share of the image; the other share is whitened


def snow(x: np.ndarray, parameters: Snow, draws: Draws) -> np.ndarray:
    """Whiten the image, and add flakes that fall, and the same flakes turned by 180 degrees."""
    noise = parameters.mean + parameters.deviation * draws.normal(*x.shape[1:3], 1)
    flakes = blurs.enlarge(noise, parameters.zoom)
    flakes = np.clip(np.where(flakes < parameters.threshold, 0, flakes), 0, 1)
    flakes = blurs.along(flakes, *parameters.blur, draws.uniform(-135, -45))
    white = np.maximum(x, 1.5 * (x @ GREY)[..., None] + 0.5)
    whitened = parameters.image * x + (1 - parameters.image) * white
    return whitened + flakes + flakes[:, ::-1, ::-1]


def brightness(x: np.ndarray, added: float, draws: Draws) -> np.ndarray:
    """Add to the value V = max(R, G, B) of each pixel, at constant hue and saturation."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    # A black pixel has no hue: it becomes grey.
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)
