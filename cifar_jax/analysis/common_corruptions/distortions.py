"""Digital distortions of images, float32 (N, H, W, 3) from 0 to 1. See `table.py`."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from cifar_jax.analysis.common_corruptions.draws import Draws


def contrast(x: np.ndarray, factor: float, draws: Draws) -> np.ndarray:
    """Multiply the distance of each channel from its mean over the image."""
    mean = x.mean((1, 2), keepdims=True)
    return mean + factor * (x - mean)


def _sample(x: np.ndarray, row: np.ndarray, column: np.ndarray, mode: str) -> np.ndarray:
    """Interpolate images, (N, H, W, 3), linearly at positions `row` and `column`.

    These are (N, H, W), in pixels. `mode` is that of `scipy.ndimage` beyond the border.
    """
    image = np.broadcast_to(np.arange(len(x))[:, None, None], row.shape)
    at = np.stack([image, row, column])
    channels = [ndimage.map_coordinates(c, at, order=1, mode=mode) for c in np.moveaxis(x, -1, 0)]
    return np.stack(channels, axis=-1)


def elastic(x: np.ndarray, parameters: tuple[float, float, float], draws: Draws) -> np.ndarray:
    """Move the image by a random affine map, then each pixel by a smooth random field.

    The map moves three points around the centre independently (Simard, Steinkraus & Platt 2003
    describe the field).

    Args:
        parameters: size of the field, its smoothness (standard deviation of a Gaussian), and
            largest movement of the three points. All are fractions of the shorter side.
    """
    height, width = x.shape[1:3]
    side = min(height, width)
    size, smooth, largest = (side * p for p in parameters)
    centre, third = np.array([width // 2, height // 2]), side // 3
    before = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + draws.uniform(-largest, largest, 3, 2)
    # The affine map from each point of the result to its source.
    back = np.linalg.solve(np.insert(after, 2, 1, axis=-1), np.broadcast_to(before, after.shape))
    row, column = np.indices((height, width))
    grid = np.stack([column, row, np.ones_like(row)], -1)
    source = grid @ back[:, None]
    x = _sample(x, source[..., 1], source[..., 0], "mirror")
    field = draws.uniform(-1, 1, 2, height, width)
    sigma = (0, 0, smooth, smooth)
    moved = size * ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)
    return _sample(x, row + moved[:, 0], column + moved[:, 1], "reflect")


def _with_pillow(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Change each image, rounded to 8 bits a channel."""
    pixels = np.rint(255 * x).astype(np.uint8)
    changed = [np.asarray(change(Image.fromarray(image))) for image in pixels]
    return np.stack(changed).astype(np.float32) / 255


def pixelate(x: np.ndarray, factor: float, draws: Draws) -> np.ndarray:
    """Reduce to `factor` of the size and enlarge again, both by box averages."""
    height, width = x.shape[1:3]
    small = int(width * factor), int(height * factor)

    def change(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize(
            (width, height), Image.Resampling.BOX
        )

    return _with_pillow(x, change)


def jpeg(x: np.ndarray, quality: int, draws: Draws) -> np.ndarray:
    """Compress as JPEG with a quality of 1 to 100, and decode."""

    def change(image: Image.Image) -> Image.Image:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        return Image.open(content)

    return _with_pillow(x, change)
