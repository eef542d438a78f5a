"""Our corruptions: closed forms, independent implementations, moments, and fixed random numbers."""

import io

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image
from scipy import ndimage, signal

from cifar_jax.analysis.common_corruptions import blurs, weather
from cifar_jax.analysis.common_corruptions.draws import Draws
from cifar_jax.analysis.common_corruptions.table import (
    KINDS,
    NAMES,
    SEVERITIES,
    check_images,
    corrupt,
)
from cifar_jax.errors import UserError

BY_NAME = {kind.name: kind for kind in KINDS}


def smooth_images(n: int, size: int = 32) -> np.ndarray:
    """Random images with coarse and fine parts, and all grey levels, like photographs."""
    noise = np.random.default_rng(3).normal(size=(n, size, size, 3))
    scales = [ndimage.gaussian_filter(noise, (0, s, s, 0)) for s in (0.5, 1, 2, 4, 8)]
    mixed = sum(part / part.std() for part in scales)
    return np.clip(128 + 30 * mixed, 0, 255).astype(np.uint8)


IMAGES = smooth_images(24)


def corrupted(name: str, severity: int, images: np.ndarray = IMAGES) -> np.ndarray:
    return corrupt(images, BY_NAME[name], severity, range(len(images)))


def draws(n: int) -> Draws:
    return Draws([np.random.default_rng(i) for i in range(n)])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_neither_on_batch_nor_order(name: str) -> None:
    at = [5, 2, 17]
    for severity in (1, 5):
        all_of_them = corrupted(name, severity)
        some = corrupt(IMAGES[at], BY_NAME[name], severity, at)
        assert all_of_them.dtype == np.uint8
        assert all_of_them.shape == IMAGES.shape
        np.testing.assert_array_equal(some, all_of_them[at])


# Some of the authors' steps exchange one parameter for another: passes for blur in glass blur, size
# for smoothness in elastic, a darker image for more frost.
NOT_MONOTONE = {"glass blur", "elastic", "frost"}


@pytest.mark.parametrize("name", NAMES)
def test_distance_from_the_image_grows_with_severity(name: str) -> None:
    distances = [
        np.sqrt(np.mean((corrupted(name, s).astype(float) - IMAGES) ** 2)) for s in SEVERITIES
    ]
    assert distances[0] > 0
    if name not in NOT_MONOTONE:
        assert distances == sorted(distances), distances


def test_other_images_and_severities_have_other_random_numbers() -> None:
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    weak, strong = corrupted("gaussian noise", 4, grey), corrupted("gaussian noise", 5, grey)
    assert (weak[0] != weak[1]).any()
    # The same numbers, times 0.10 / 0.09, would correlate perfectly.
    assert abs(np.corrcoef(weak.ravel(), strong.ravel())[0, 1]) < 0.05


def test_noise_has_the_moments_of_its_formula() -> None:
    """Within four standard errors of 200 x 3,072 values."""
    grey = np.full((200, 32, 32, 3), 102, np.uint8)  # 0.4, far from both ends
    values = 200 * 32 * 32 * 3
    for severity, sigma in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noise = corrupted("gaussian noise", severity, grey) / 255 - 0.4
        assert abs(noise.mean()) < 4 * sigma / np.sqrt(values)
        assert noise.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * values) + 1e-3)
    for severity, photons in zip(SEVERITIES, (500, 250, 100, 75, 50), strict=True):
        shot = corrupted("shot noise", severity, grey) / 255
        sigma = np.sqrt(0.4 / photons)
        assert abs(shot.mean() - 0.4) < 4 * sigma / np.sqrt(values) + 1e-4
        # One of 250 photons is 1.02 pixel levels: rounding to levels takes up to 2 % off.
        assert shot.std() == pytest.approx(sigma, rel=0.025)
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        impulse = corrupted("impulse noise", severity, grey)
        error = 4 * np.sqrt(share / 2 / values)
        assert (impulse == 0).mean() == pytest.approx(share / 2, abs=error)
        assert (impulse == 255).mean() == pytest.approx(share / 2, abs=error)


def test_contrast_is_its_formula() -> None:
    x = IMAGES / 255
    for severity, factor in zip(SEVERITIES, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        mean = x.mean((1, 2), keepdims=True)
        wanted = 255 * ((x - mean) * factor + mean)
        assert np.abs(corrupted("contrast", severity) - wanted).max() < 0.501


def test_brightness_adds_to_the_value_of_hsv() -> None:
    """Against matplotlib's conversion, to the rounding of a pixel."""
    images = IMAGES.copy()
    images[0, :4] = 0
    for severity, added in zip(SEVERITIES, (0.05, 0.1, 0.15, 0.2, 0.3), strict=True):
        hsv = colors.rgb_to_hsv(images / 255)
        hsv[..., 2] = np.minimum(hsv[..., 2] + added, 1)
        wanted = 255 * colors.hsv_to_rgb(hsv)
        assert np.abs(corrupted("brightness", severity, images) - wanted).max() < 0.501


def test_jpeg_and_pixelate_are_pillows() -> None:
    image = Image.fromarray(IMAGES[0])
    for severity, quality in zip(SEVERITIES, (80, 65, 58, 50, 40), strict=True):
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        np.testing.assert_array_equal(corrupted("jpeg", severity)[0], Image.open(content))
    for severity, size in zip(SEVERITIES, (30, 28, 27, 24, 20), strict=True):
        box = Image.Resampling.BOX
        wanted = image.resize((size, size), box).resize((32, 32), box)
        np.testing.assert_array_equal(corrupted("pixelate", severity)[0], wanted)


def test_defocus_is_a_convolution_with_a_smooth_disk() -> None:
    """Against scipy.signal on the reflected image, to the rounding of a pixel."""
    assert blurs.disk(1.5, 0.1).sum() == pytest.approx(1)
    # A tiny smoothing leaves the disk: all 9 pixels within 1.5 of the centre.
    np.testing.assert_allclose(blurs.disk(1.5, 0.1)[2:5, 2:5], 1 / 9, atol=1e-9)
    kernel = blurs.disk(1, 0.2)
    padded = np.pad(IMAGES[0] / 255.0, ((9, 9), (9, 9), (0, 0)), mode="reflect")
    for channel in range(3):
        full = signal.convolve2d(padded[..., channel], kernel, mode="same")[9:-9, 9:-9]
        found = corrupted("defocus blur", 4)[0, ..., channel]
        assert np.abs(found - 255 * full).max() < 0.51


def test_motion_blur_of_a_point_is_half_a_gaussian_along_the_line() -> None:
    x = np.zeros((2, 15, 15, 1), np.float32)
    x[:, 7, 7] = 1
    blurred = blurs.along(x, 3, 2.0, np.array([0.0, -90.0]))[..., 0]
    weights = np.exp(-0.5 * (np.arange(7) / 2) ** 2)
    wanted = np.zeros((15, 15))
    wanted[7, 1:8] = (weights / weights.sum())[::-1]
    np.testing.assert_allclose(blurred[0], wanted, atol=1e-7)
    # Degrees grow clockwise, because rows grow downwards.
    np.testing.assert_allclose(blurred[1], wanted.T[::-1], atol=1e-7)


@pytest.mark.parametrize("factor", [1.01, 1.13, 1.25, 2.25])
def test_enlarging_equals_scipys_zoom(factor: float) -> None:
    """Within float32's rounding, 1e-6."""
    image = IMAGES[0].astype(np.float32) / 255
    inner = int(np.ceil(32 / factor))
    top = (32 - inner) // 2
    cut = image[top : top + inner, top : top + inner]
    large = ndimage.zoom(cut, (factor, factor, 1), order=1)
    trim = (len(large) - 32) // 2
    wanted = large[trim : trim + 32, trim : trim + 32]
    np.testing.assert_allclose(blurs.enlarge(image[None], factor)[0], wanted, atol=1e-6)


def test_glass_blur_moves_pixels_by_at_most_the_number_of_passes() -> None:
    """Severity 1 hardly blurs. Each pixel is a neighbour above or left, or itself."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    found = corrupted("glass blur", 1, images)[0]
    moved = [np.roll(images[0], (down, right), (0, 1)) for down in (0, 1) for right in (0, 1)]
    same = np.stack([(found == other).all(-1) for other in moved])
    assert same[:, 2:, 2:].any(0).all()
    assert same[0, :2].all()
    assert same[0, :, :2].all()
    shares = same[:, 2:, 2:].mean((1, 2))
    np.testing.assert_allclose(shares, 0.25, atol=0.06)  # four standard errors of 900


def test_fog_keeps_the_largest_value_possible_and_clouds_fill_their_range() -> None:
    clouds = weather.plasma(32, 1.75, draws(40))
    assert clouds.shape == (40, 32, 32)
    np.testing.assert_allclose(clouds.min((1, 2)), 0)
    np.testing.assert_allclose(clouds.max((1, 2)), 1)
    white = np.full((3, 32, 32, 3), 255, np.uint8)
    assert corrupted("fog", 5, white).max() == 255
    # The smaller the decay, the rougher.
    rough = [
        np.abs(np.diff(weather.plasma(32, decay, draws(40)), axis=2)).mean() for decay in (1.5, 3)
    ]
    assert rough[0] > 1.5 * rough[1]


def test_snow_without_noise_whitens() -> None:
    """With a threshold that no noise reaches, the formula's first part is left."""
    x = IMAGES.astype(np.float32) / 255
    nothing = weather.Snow(0, 0.01, 1, 2.0, (8, 3), 0.8)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    wanted = 0.8 * x + 0.2 * np.maximum(x, 1.5 * grey[..., None] + 0.5)
    np.testing.assert_allclose(weather.snow(x, nothing, draws(len(x))), wanted, atol=1e-6)


def test_frost_has_the_brightness_and_contrast_of_the_photographs() -> None:
    """Mean of each colour within 12 levels of (142, 163, 174), contrast within 1 of 20."""
    texture = 255 * weather.frost_texture(np.zeros((200, 32, 32, 3), np.float32), draws(200))
    np.testing.assert_allclose(texture.mean((0, 1, 2)), (142, 163, 174), atol=12)
    assert texture.mean(-1).std((1, 2)).mean() == pytest.approx(20, abs=1)


def test_elastic_moves_smooth_images_by_little_and_does_not_change_their_colours() -> None:
    ramp = np.zeros((4, 32, 32, 3), np.uint8)
    ramp[:] = 100 + 2 * np.arange(32)[:, None]
    for severity, largest in zip(SEVERITIES, (0.08, 0.07, 0.06, 0.05, 0.03), strict=True):
        moved = corrupted("elastic", severity, ramp).astype(int) - ramp
        # Corners move more than the three points: at most 4.2 times; plus the field of 3.2 pixels.
        assert np.abs(moved[:, 4:-4, 4:-4]).max() <= 2 * (4.2 * 32 * largest + 3.3)
        assert (np.ptp(moved, axis=-1) == 0).all()


def test_other_sizes_work_and_other_images_are_refused() -> None:
    images = smooth_images(2, 48)[:, :40]
    for kind in KINDS:
        assert corrupt(images, kind, 5, [0, 1]).shape == images.shape
    for shape in ((32, 32, 1), (4, 32, 3)):
        with pytest.raises(UserError, match="cannot be corrupted"):
            check_images(shape, "digits")
