"""Built-in images that need no download: ten kinds of drawn figure, in clutter.

An image has a background of two smooth random colour fields, one coarse and one fine. Up to two
small figures of random kinds are drawn on it as distractors. The larger figure on top gives the
label. Its centre, size, rotation, stretch, colours and edge blur are random. So is one parameter of
its kind: the size of a ring's hole, the roundness of a square's corners, ... Some images get a bar
that hides part of the figure, and some become grey. All get a change of brightness and pixel noise.

Figures may be faint, cut by the bar, or like another kind. A ring with a tiny hole and a square
with round corners are almost disks. A cross with broad arms is almost a square. Labels are always
true.

Flips and shifts by a few pixels, as in training, do not change a figure's kind. The kinds are
balanced. The pixels are the same on all machines and for any number of threads. Each chunk has its
own PCG64 generator, and the operations are exactly rounded float32. Only the sine and cosine of
each figure's rotation are not; they are computed in float64.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cifar_jax.data.sources.cache import open_or_build
from cifar_jax.data.sources.contents import (
    IMAGE_SHAPE,
    Contents,
    Dataset,
    Progress,
    as_dataset,
    silent,
)
from cifar_jax.device import cpu_count

CLASSES = (
    "checks",
    "crescent",
    "cross",
    "disk",
    "dots",
    "ring",
    "square",
    "star",
    "stripes",
    "triangle",
)
VERSION = 1
"""Part of the cache key. Raise it when pixels change."""

_SIZE = IMAGE_SHAPE[0]
_CHUNK = 500
_PIXELS = np.arange(_SIZE, dtype=np.float32)
_SPLIT_STREAMS = {"train": 0, "test": 1}


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    """Draw float32 numbers, uniform in [low, high)."""
    numbers: np.ndarray = rng.random(shape, np.float32)
    return numbers * np.float32(high - low) + np.float32(low)


def _smooth_field(rng: np.random.Generator, n: int, cells: int) -> np.ndarray:
    """Interpolate random (cells + 1)^2 grids bilinearly: float32 (n, 32, 32) in [0, 1)."""
    grid = _uniform(rng, 0, 1, n, cells + 1, cells + 1)
    position = _PIXELS * np.float32(cells / _SIZE)
    low = position.astype(np.int64)
    share = position - low.astype(np.float32)
    rows: np.ndarray = grid[:, low] + (grid[:, low + 1] - grid[:, low]) * share[:, None]
    left: np.ndarray = rows[:, :, low]
    field: np.ndarray = left + (rows[:, :, low + 1] - left) * share
    return field


def _wave(x: np.ndarray) -> np.ndarray:
    """Return a triangle wave of period 1 in [-1, 1]."""
    wave: np.ndarray = np.abs(x - np.floor(x) - np.float32(0.5)) * np.float32(4) - np.float32(1)
    return wave


def _box(
    u: np.ndarray, v: np.ndarray, a: np.ndarray | np.float32, b: np.ndarray | np.float32
) -> np.ndarray:
    distance: np.ndarray = np.maximum(np.abs(u) - a, np.abs(v) - b)
    return distance


def _half_planes(u: np.ndarray, v: np.ndarray, sides: int) -> list[np.ndarray]:
    """Return the distance from the origin along each of `sides` equally spread directions."""
    angles = 2 * np.pi * np.arange(sides) / sides
    return [u * np.float32(np.cos(a)) + v * np.float32(np.sin(a)) for a in angles]


def _figure(
    kind: str, u: np.ndarray, v: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute the shape of a figure of about unit radius around the origin.

    Args:
        kind: one of `CLASSES`.
        u, v: float32 (n, 32, 32), horizontal and vertical coordinate of each pixel in the
            figure's frame.
        p: float32 (n, 1, 1) in [0, 1), the figure's own parameter.

    Returns:
        Distance to the outline, negative inside, float32 (n, 32, 32). Then the share of the first
        of two colours in each pixel, in [0, 1], or None for figures of one colour.
    """
    r = np.sqrt(u * u + v * v)
    if kind == "disk":
        return r - np.float32(0.95), None
    if kind == "ring":
        half_width = np.float32(0.44) - np.float32(0.3) * p
        return np.abs(r - (1 - half_width)) - half_width, None
    if kind == "square":
        corner = np.float32(0.7) * p
        inner = np.float32(0.85) - corner
        du, dv = np.abs(u) - inner, np.abs(v) - inner
        inside = np.minimum(np.maximum(du, dv), 0)
        du, dv = np.maximum(du, 0), np.maximum(dv, 0)
        return inside + np.sqrt(du * du + dv * dv) - corner, None
    if kind == "triangle":
        return np.maximum.reduce(_half_planes(u, v, 3)) - np.float32(0.55), None
    if kind == "cross":
        arm, length = np.float32(0.2) + np.float32(0.35) * p, np.float32(1)
        return np.minimum(_box(u, v, length, arm), _box(u, v, arm, length)), None
    if kind == "star":
        inner = np.float32(0.34) + np.float32(0.25) * p
        tips = np.sort(_half_planes(u, v, 5), axis=0)[-2] - inner  # within all edges but one
        return np.maximum(tips, r - np.float32(1.15)), None
    if kind == "crescent":
        du = u - (np.float32(0.3) + np.float32(0.55) * p)
        return np.maximum(r - 1, np.float32(0.85) - np.sqrt(du * du + v * v)), None
    frequency = np.float32(0.9) + np.float32(0.6) * p
    across, along = _wave(u * frequency), _wave(v * frequency)
    outline = np.maximum(r - 1, _box(u, v, np.float32(0.85), np.float32(0.85)))
    if kind == "stripes":
        pattern = across
    elif kind == "checks":
        pattern = 2 * across * along
    else:
        pattern = across + along - np.float32(0.6)
    return outline, np.clip(np.float32(0.5) + 2 * pattern, 0, 1)


def _draw(
    rng: np.random.Generator,
    canvas: np.ndarray,
    kinds: np.ndarray,
    radius: np.ndarray,
    spread: float,
    contrast: tuple[float, float],
) -> None:
    """Paint one figure into each image, in place.

    Args:
        rng: the chunk's generator.
        canvas: float32 (n, 3, 32, 32).
        kinds: integers (n,), indices into `CLASSES`.
        radius: float32 (n,), in pixels; 0 draws nothing.
        spread: largest distance of the centre from the middle along each axis, in pixels.
        contrast: limits of the root mean square difference, in [0, 1], between the figure's
            colour and the mean of four background pixels.
    """
    n = len(canvas)
    middle = (_SIZE - 1) / 2
    cx, cy = _uniform(rng, middle - spread, middle + spread, 2, n, 1, 1)
    angle = 2 * np.pi * rng.random((n, 1, 1))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    stretch = _uniform(rng, 0.75, 1, n, 1, 1)
    parameter = _uniform(rng, 0, 1, n, 1, 1)
    blur = _uniform(rng, 0.8, 3, n, 1, 1)
    scale = np.maximum(radius, np.float32(1e-3))[:, None, None]
    x, y = (_PIXELS - cx) / scale, (_PIXELS[:, None] - cy) / scale
    u, v = cos * x + sin * y, (cos * y - sin * x) / stretch
    upper = canvas[:, :, 10, 10] + canvas[:, :, 10, 21]
    lower = canvas[:, :, 21, 10] + canvas[:, :, 21, 21]
    background = (upper + lower) * np.float32(0.25)
    first = _away_from(rng, background, contrast)
    second = _away_from(rng, first, (0.15, 0.5))
    for kind in np.unique(kinds):
        chosen = np.flatnonzero((kinds == kind) & (radius > 0))
        if len(chosen) == 0:
            continue
        distance, share = _figure(CLASSES[kind], u[chosen], v[chosen], parameter[chosen])
        cover = np.clip(np.float32(0.5) - distance * scale[chosen] / blur[chosen], 0, 1)[:, None]
        colour = first[chosen][:, :, None, None]
        if share is not None:
            other = second[chosen][:, :, None, None]
            colour = other + (colour - other) * share[:, None]
        below = canvas[chosen]
        canvas[chosen] = below + (colour - below) * cover


def _channel_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over axis 1, of length 3, kept. `np.mean` guarantees no order of sums."""
    total: np.ndarray = values[:, 0:1] + values[:, 1:2] + values[:, 2:3]
    return total / np.float32(3)


def _away_from(
    rng: np.random.Generator, colours: np.ndarray, contrast: tuple[float, float]
) -> np.ndarray:
    """Move colours, float32 (n, 3), by a random step, more often to brighter ones."""
    step = _uniform(rng, -0.4, 1, *colours.shape)
    length = np.sqrt(_channel_mean(step * step)) + np.float32(1e-3)
    step *= _uniform(rng, *contrast, len(colours), 1) / length
    # Reverse a step that would leave the colour cube.
    outside = (colours + step < 0) | (colours + step > 1)
    moved: np.ndarray = np.clip(colours + np.where(outside, -step, step), 0, 1)
    return moved


def _bars(rng: np.random.Generator, canvas: np.ndarray, probability: float) -> None:
    """Draw a straight bar of one colour over some images, in place."""
    n = len(canvas)
    angle = np.pi * rng.random((n, 1, 1))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    offset = _uniform(rng, -9, 9, n, 1, 1)
    half_width = _uniform(rng, 1, 3, n, 1, 1)
    has_bar = _uniform(rng, 0, 1, n, 1, 1) < probability
    middle = np.float32((_SIZE - 1) / 2)
    distance = np.abs(cos * (_PIXELS - middle) + sin * (_PIXELS[:, None] - middle) - offset)
    cover = np.where(has_bar, np.clip(np.float32(0.5) + half_width - distance, 0, 1), 0)[:, None]
    colour = _uniform(rng, 0, 1, n, 3, 1, 1)
    canvas += (colour - canvas) * cover.astype(np.float32)


def _images(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Draw one image a label: uint8 (n, 32, 32, 3)."""
    n = len(labels)
    base = _uniform(rng, 0.05, 0.65, n, 3)
    low = base[:, :, None, None]
    high = _away_from(rng, base, (0.1, 0.5))[:, :, None, None]
    coarse, fine = _smooth_field(rng, n, 2), _smooth_field(rng, n, 9)
    mix = _uniform(rng, 0.1, 0.6, n, 1, 1)
    canvas = low + (high - low) * (coarse + (fine - coarse) * mix)[:, None]

    radius = _uniform(rng, 8, 13, n)
    count = rng.integers(0, 3, n)
    for i in range(2):
        kinds = rng.integers(0, len(CLASSES), n)
        smaller = np.where(i < count, radius * _uniform(rng, 0.25, 0.55, n), 0)
        _draw(rng, canvas, kinds, smaller.astype(np.float32), 14, (0.05, 0.3))
    _draw(rng, canvas, labels, radius, 3, (0.2, 0.6))
    _bars(rng, canvas, 0.4)

    grey = _channel_mean(canvas)
    is_grey = (_uniform(rng, 0, 1, n) < 0.2)[:, None, None, None]
    canvas = np.where(is_grey, grey, canvas)
    canvas = canvas * _uniform(rng, 0.7, 1.1, n, 1, 1, 1) + _uniform(rng, -0.1, 0.1, n, 1, 1, 1)
    noise = _uniform(rng, -1, 1, n, 3, _SIZE, _SIZE) + _uniform(rng, -1, 1, n, 3, _SIZE, _SIZE)
    canvas += noise * _uniform(rng, 0.01, 0.06, n, 1, 1, 1)
    pixels = np.clip(canvas * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _split(
    split: str, n: int, seed: int, workers: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images, uint8 (n, 32, 32, 3), and labels, int32 (n,), of one split."""
    stream = _SPLIT_STREAMS[split]
    order = np.random.Generator(np.random.PCG64([seed, stream]))
    labels = order.permutation(np.arange(n) % len(CLASSES)).astype(np.int32)
    images = np.empty((n, *IMAGE_SHAPE), np.uint8)

    def work(start: int) -> int:
        rng = np.random.Generator(np.random.PCG64([seed, stream, 1 + start // _CHUNK]))
        chunk = slice(start, start + _CHUNK)
        images[chunk] = _images(rng, labels[chunk])
        return min(start + _CHUNK, n)

    pool = ThreadPoolExecutor(workers)
    try:
        for done in pool.map(work, range(0, n, _CHUNK)):
            progress(f"drawing synthetic {split} images", done, n)
    finally:
        pool.shutdown(cancel_futures=True)
    return images, labels


def _contents(
    n_train: int, n_test: int, seed: int, workers: int | None, progress: Progress
) -> Contents:
    threads = workers or cpu_count()
    train_images, train_labels = _split("train", n_train, seed, threads, progress)
    test_images, test_labels = _split("test", n_test, seed, threads, progress)
    return Contents(train_images, train_labels, test_images, test_labels, CLASSES)


def generate(
    n_train: int = 50_000,
    n_test: int = 10_000,
    seed: int = 0,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Draw a synthetic dataset, without the cache.

    Args:
        n_train: training images, balanced over the classes.
        n_test: test images.
        seed: of all random numbers.
        workers: threads (default: one a core); they do not change the result.
        progress: receives the number of drawn images of a split.
    """
    return as_dataset("synthetic", _contents(n_train, n_test, seed, workers, progress))


def load(root: Path, *, progress: Progress = silent) -> Dataset:
    """Open the 50,000 + 10,000 images of seed 0. The first call draws them into the cache `root`.

    Raises:
        UserError: the cache cannot be written.
    """
    return open_or_build(
        root,
        f"synthetic-{VERSION}",
        "synthetic",
        lambda: _contents(50_000, 10_000, 0, None, progress),
        family="synthetic-",
    )
