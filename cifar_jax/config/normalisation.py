"""Mean and standard deviation of each channel: as text of a setting, and of images."""

import math

import numpy as np

from cifar_jax.errors import UserError, shown

MOST_IMAGES = 10_000


def parse_channels(text: str, flag: str) -> tuple[float, ...]:
    """Parse the text of --mean or --std: a number for each channel, separated by commas.

    Args:
        text: of the flag.
        flag: "--mean" allows 0 to 1; "--std" does not allow 0.

    Raises:
        UserError: a number is not allowed.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(0 <= value <= 1 for value in found) or (flag == "--std" and 0 in found):
        allowed = "above 0 and at most 1" if flag == "--std" else "from 0 to 1"
        raise UserError(
            f"{flag} {shown(text)}: must be a number for each channel, {allowed}, separated by "
            "commas"
        )
    return found


def statistics(images: np.ndarray) -> tuple[str, str]:
    """Compute mean and standard deviation of each channel, of pixels in [0, 1].

    Args:
        images: uint8 (N, H, W, C). Of more than 10,000 images, 10,000 evenly spread ones are read.

    Returns:
        Four decimals per channel, in the form of --mean and --std. A deviation is at least 0.0001.
    """
    rows = np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).astype(int)
    total = np.zeros((2, images.shape[-1]))
    for start in range(0, len(rows), 1000):
        block = images[rows[start : start + 1000]] / 255
        total += block.sum((0, 1, 2)), (block**2).sum((0, 1, 2))
    mean, square = total / (len(rows) * images.shape[1] * images.shape[2])
    std = np.sqrt(np.maximum(square - mean**2, 1e-8))
    mean_text, std_text = (",".join(f"{value:.4f}" for value in part) for part in (mean, std))
    return mean_text, std_text
