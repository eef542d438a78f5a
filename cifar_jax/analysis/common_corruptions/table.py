"""Corrupt images: fifteen kinds at five severities, after Hendrycks & Dietterich 2019.

"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", arXiv 1903.12261,
section 4.1. The parameters are those of the authors' program for 32x32 images, from their
repository hendrycks/robustness. Our images are not their data set CIFAR-10-C:

- Their random numbers are lost. Ours come from a seed for each kind, severity and image. So an
  image does not depend on the number or the order of the images.
- Frost needs photographs. We draw a texture with about their brightness and contrast instead.
- We round pixels to the nearest of 256 values. Their program rounds down.

Parameters in pixels are for 32x32 images. Larger images are corrupted by as many pixels, so less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_jax.analysis.common_corruptions import blurs, distortions, noises, weather
from cifar_jax.analysis.common_corruptions.draws import Draws
from cifar_jax.analysis.lacking import Lacking

NAME = "our corruptions, after Hendrycks & Dietterich 2019"
SEED = 1903_12261
SEVERITIES = (1, 2, 3, 4, 5)
DESIGNED_FOR = 32  # pixels per side
SMALLEST = 8  # pixels per side: smaller ones have no room for the larger blurs


@dataclass(frozen=True)
class Kind:
    """A kind of corruption.

    Attributes:
        name: as in the paper's table 1, in lower case.
        group: noise, blur, weather or digital.
        function: takes images, float32 (N, H, W, 3) from 0 to 1, parameters and random numbers.
            Returns images of the same shape, which may leave this range.
        parameters: of the five severities, weakest first.
    """

    name: str
    group: str
    function: Callable[[np.ndarray, Any, Draws], np.ndarray]
    parameters: tuple[Any, ...]


KINDS = (
    Kind("gaussian noise", "noise", noises.gaussian, (0.04, 0.06, 0.08, 0.09, 0.10)),
    Kind("shot noise", "noise", noises.shot, (500, 250, 100, 75, 50)),
    Kind("impulse noise", "noise", noises.impulse, (0.01, 0.02, 0.03, 0.05, 0.07)),
    Kind(
        "defocus blur",
        "blur",
        blurs.defocus,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    Kind("glass blur", "blur", blurs.glass, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))),
    Kind("motion blur", "blur", blurs.motion, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    Kind("zoom blur", "blur", blurs.zoom, (1.06, 1.11, 1.16, 1.21, 1.26)),
    Kind(
        "snow",
        "weather",
        weather.snow,
        (
            weather.Snow(0.1, 0.2, 1, 0.6, (8, 3), 0.95),
            weather.Snow(0.1, 0.2, 1, 0.5, (10, 4), 0.9),
            weather.Snow(0.15, 0.3, 1.75, 0.55, (10, 4), 0.9),
            weather.Snow(0.25, 0.3, 2.25, 0.6, (12, 6), 0.85),
            weather.Snow(0.3, 0.3, 1.25, 0.65, (14, 12), 0.8),
        ),
    ),
    Kind(
        "frost",
        "weather",
        weather.frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ),
    Kind("fog", "weather", weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    Kind("brightness", "weather", weather.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    Kind("contrast", "digital", distortions.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    Kind(
        "elastic",
        "digital",
        distortions.elastic,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    Kind("pixelate", "digital", distortions.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    Kind("jpeg", "digital", distortions.jpeg, (80, 65, 58, 50, 40)),
)
NAMES = tuple(kind.name for kind in KINDS)


def check_images(shape: Sequence[int], dataset: str) -> None:
    """Check that images of a shape (H, W, C) can be corrupted.

    Raises:
        Lacking: they have not three channels, or are smaller than 8x8.
    """
    height, width, channels = shape
    if channels != 3 or min(height, width) < SMALLEST:
        raise Lacking(
            f"{dataset}: images of {height}x{width}x{channels} cannot be corrupted; they must have "
            f"3 channels and at least {SMALLEST}x{SMALLEST} pixels"
        )


def corrupt(images: np.ndarray, kind: Kind, severity: int, indices: Sequence[int]) -> np.ndarray:
    """Return corrupted images, uint8 (N, H, W, 3).

    Args:
        images: uint8 (N, H, W, 3).
        kind: one of `KINDS`.
        severity: 1, the weakest, to 5.
        indices: of the images in their data set, (N,). They choose the random numbers.
    """
    key = SEED, NAMES.index(kind.name), severity
    draws = Draws([np.random.default_rng([*key, int(index)]) for index in indices])
    x = images.astype(np.float32) / 255
    corrupted = kind.function(x, kind.parameters[severity - 1], draws)
    return np.rint(255 * np.clip(corrupted, 0, 1)).astype(np.uint8)
