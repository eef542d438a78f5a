"""Convert Pillow's images to 8-bit RGB.

Grey of more than 8 bits is scaled so that the white level becomes 255, and rounded. The white
level is `--white-level`, else the format's: 65535 for PNG, PPM and unsigned 16-bit TIFF, 4095
for 12-bit TIFF. An image whose format has no white level is an error. So is a 16-bit image with
values of 12 bits or fewer: it would be black. Pillow keeps the high byte of 16-bit colours.
Transparent pixels are blended with white.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cifar_jax.errors import UserError

FULL = 65535
_TWELVE_BITS = 4095
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_SRGB_GAMMA = 1 / 2.2


class Unusable(UserError):
    """A file cannot be used. The message is the reason, without the file's path."""


TRANSPARENT = "transparent"
DEPTH = "depth"
CHANNELS = "channels"
CMYK = "cmyk"
PROFILE = "profile"


@dataclass(frozen=True)
class Stored:
    """Storage of a file's pixels, read before they are decoded.

    Attributes:
        format: Pillow's name of the file format.
        raw: Pillow's name of the layout of the stored pixels, or "".
        inverted: 0 is white, and Pillow does not change that.
        signed: 8-bit values are signed, but Pillow reads them as unsigned.
    """

    format: str
    raw: str
    inverted: bool
    signed: bool

    @property
    def wide_colour(self) -> bool:
        """Whether the file has 16-bit colours. Pillow keeps their high byte."""
        return ";16" in self.raw and not self.raw.startswith("I")


def stored(image: Image.Image) -> Stored:
    """Return the storage of an opened file's pixels."""
    tiles: Any = getattr(image, "tile", None) or [(None, None, None, "")]
    first = tiles[0][3]
    raw = first[0] if isinstance(first, tuple) and first else first
    raw = raw if isinstance(raw, str) else ""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode[0] in "IF"
    signed = image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ())
    return Stored(image.format or "", raw, inverted, signed)


def _white(image: Image.Image, layout: Stored) -> int | None:
    """Return the white level of the file's format, or None."""
    if layout.format in ("PNG", "PPM"):
        return FULL
    if layout.raw == "I;12":
        return _TWELVE_BITS
    return FULL if image.mode.startswith("I;16") else None


def _too_dark(largest: float) -> str:
    return (
        f"16 bits, but no value is above {largest:g} of {FULL}, which is nearly black; give the "
        f"value of white with --white-level ({FULL} if the image is that dark)"
    )


def _grey(image: Image.Image, layout: Stored, white_level: float | None) -> Image.Image:
    """Scale modes I, I;16* and F to 8 bits.

    Raises:
        Unusable: the range of the values is unknown, or a value is outside it.
    """
    values = np.asarray(image)
    if layout.raw == "I;32N":  # unsigned, which Pillow gives as signed
        values = values.view(np.uint32)
    low, high = float(values.min()), float(values.max())
    white = white_level or _white(image, layout)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Unusable("grey values that are not finite")
    if white is None:
        raise Unusable(
            f"grey values from {low:g} to {high:g}, and the format has no white level; "
            "give it with --white-level"
        )
    if low < 0 or high > white:
        raise Unusable(f"grey values from {low:g} to {high:g}; allowed: 0 to {white:g}")
    if white_level is None and layout.raw.startswith("I;16") and 0 < high <= _TWELVE_BITS:
        raise Unusable(_too_dark(high))
    scaled = np.rint(values.astype(np.float32) * np.float32(255 / white)).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if layout.inverted else scaled)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _colour(image: Image.Image, layout: Stored, white_level: float | None) -> Image.Image:
    """Check 16-bit colours. Pillow keeps their high byte.

    Raises:
        Unusable: they use at most 12 bits, or their low byte matters.
    """
    if white_level not in (None, FULL):
        raise Unusable(f"16-bit colours allow only --white-level {FULL}")
    if isinstance(image.info.get("transparency"), tuple):
        raise Unusable("16-bit colours with one transparent colour; allowed: an alpha channel")
    extrema: Any = image.getextrema()
    bands = extrema[: len(image.getbands()) - (image.mode[-1] in "Aa")]
    high = max(most for _, most in bands)
    if white_level is None and 0 < high <= _TWELVE_BITS >> 8 and image.mode != "CMYK":
        raise Unusable(_too_dark(high << 8 | 255))
    return image


def _on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """Blend transparent pixels with white. Return the image, and whether it had any."""
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    alpha: Any = rgba.getextrema()
    if alpha[3][0] == 255:
        return rgba.convert("RGB"), False
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB"), True


def _has_profile(image: Image.Image) -> bool:
    """Return whether a file declares other colours than sRGB."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return not any(name in profile for name in (b"sRGB", "sRGB".encode("utf-16-be")))
    gamma = image.info.get("gamma")
    return isinstance(gamma, float) and abs(gamma - _SRGB_GAMMA) > 0.01


def to_rgb(
    image: Image.Image, layout: Stored, white_level: float | None
) -> tuple[Image.Image, set[str]]:
    """Convert an image to 8-bit RGB.

    Args:
        image: with decoded pixels.
        layout: storage of the pixels, from `stored`.
        white_level: see `FolderOptions`.

    Returns:
        The image, and those of TRANSPARENT, DEPTH, CHANNELS, CMYK and PROFILE that apply to it.

    Raises:
        Unusable: the range of its values is unknown.
    """
    found = set()
    if layout.signed:
        raise Unusable("signed 8-bit values; allowed: unsigned")
    if image.mode[0] in "IF":
        found.add(DEPTH)
        image = _grey(image, layout, white_level)
    elif layout.wide_colour:
        found.add(DEPTH)
        image = _colour(image, layout, white_level)
    if "X" in layout.raw and layout.format == "TIFF":
        found.add(CHANNELS)
    if image.mode == "CMYK":
        found.add(CMYK)
    elif _has_profile(image):
        found.add(PROFILE)
    if not image.has_transparency_data:
        return image.convert("RGB"), found
    rgb, transparent = _on_white(image)
    return rgb, found | ({TRANSPARENT} if transparent else set())
