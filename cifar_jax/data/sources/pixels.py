"""From what Pillow decodes to 8-bit RGB, and what is changed on the way.

Grey of more than 8 bits is scaled so that the white level becomes 255, rounded to the nearest.
The white level is `--white-level`, else what the format says: 65535 of PNG, PPM and unsigned
16-bit TIFF, 4095 of 12-bit TIFF. Where the format says nothing the image is refused. So is one
of 16 bits that uses 12 of them or fewer: it would be black. Of 16-bit colour Pillow keeps the
high byte. Transparent pixels are blended with white.
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
    """One file that cannot be used; the message is the reason, without the file's path."""


TRANSPARENT = "transparent"
DEPTH = "depth"
CHANNELS = "channels"
CMYK = "cmyk"
PROFILE = "profile"


@dataclass(frozen=True)
class Stored:
    """How an opened file stores its pixels, read before they are decoded.

    Attributes:
        format: Pillow's name of the file format.
        raw: Pillow's name of the layout of the stored pixels, "" where it gives none.
        inverted: whether 0 is white, and Pillow leaves it so.
        signed: whether 8-bit values are signed, and Pillow takes them as unsigned.
    """

    format: str
    raw: str
    inverted: bool
    signed: bool

    @property
    def wide_colour(self) -> bool:
        """Whether the file has colours of 16 bits, of which Pillow keeps the high byte."""
        return ";16" in self.raw and not self.raw.startswith("I")


def stored(image: Image.Image) -> Stored:
    """Read how an opened file stores its pixels."""
    tiles: Any = getattr(image, "tile", None) or [(None, None, None, "")]
    first = tiles[0][3]
    raw = first[0] if isinstance(first, tuple) and first else first
    raw = raw if isinstance(raw, str) else ""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode[0] in "IF"
    signed = image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ())
    return Stored(image.format or "", raw, inverted, signed)


def _white(image: Image.Image, how: Stored) -> int | None:
    """The value that is white by the file's format; None where it does not say."""
    if how.format in ("PNG", "PPM"):
        return FULL
    if how.raw == "I;12":
        return _TWELVE_BITS
    return FULL if image.mode.startswith("I;16") else None


def _too_dark(largest: float) -> str:
    return (
        f"16 bits, but no value is above {largest:g} of {FULL}, which is nearly black; give the "
        f"value of white with --white-level ({FULL} if the image is really so dark)"
    )


def _grey(image: Image.Image, how: Stored, white_level: float | None) -> Image.Image:
    """Scale modes I, I;16* and F to 8 bits.

    Raises:
        Unusable: if the range of the values is not known, or they leave it.
    """
    values = np.asarray(image)
    if how.raw == "I;32N":  # unsigned, which Pillow gives as signed
        values = values.view(np.uint32)
    low, high = float(values.min()), float(values.max())
    white = white_level or _white(image, how)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Unusable("grey values that are not finite")
    if white is None:
        raise Unusable(
            f"grey values from {low:g} to {high:g}, and the file does not say which is white; "
            "give it with --white-level"
        )
    if low < 0 or high > white:
        raise Unusable(f"grey values from {low:g} to {high:g}; allowed: 0 to {white:g}")
    if white_level is None and how.raw.startswith("I;16") and 0 < high <= _TWELVE_BITS:
        raise Unusable(_too_dark(high))
    scaled = np.rint(values.astype(np.float32) * np.float32(255 / white)).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if how.inverted else scaled)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _colour(image: Image.Image, how: Stored, white_level: float | None) -> Image.Image:
    """Check 16-bit colours, of which Pillow keeps the high byte.

    Raises:
        Unusable: if they use no more than 12 bits, or their low byte decides something.
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
    """Blend transparent pixels with white; whether there are any."""
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
    """Whether a file says that its colours are not those of sRGB."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return not any(name in profile for name in (b"sRGB", "sRGB".encode("utf-16-be")))
    gamma = image.info.get("gamma")
    return isinstance(gamma, float) and abs(gamma - _SRGB_GAMMA) > 0.01


def to_rgb(
    image: Image.Image, how: Stored, white_level: float | None
) -> tuple[Image.Image, set[str]]:
    """Convert a decoded image to RGB of 8 bits.

    Args:
        image: its pixels are decoded.
        how: what `stored` said before.
        white_level: the grey value that is white in files of more than 8 bits; None: as the
            format says.

    Returns:
        The image, and which of TRANSPARENT, DEPTH, CHANNELS, CMYK and PROFILE is true of it.

    Raises:
        Unusable: if the range of its values is not known.
    """
    found = set()
    if how.signed:
        raise Unusable("signed 8-bit values; allowed: unsigned")
    if image.mode[0] in "IF":
        found.add(DEPTH)
        image = _grey(image, how, white_level)
    elif how.wide_colour:
        found.add(DEPTH)
        image = _colour(image, how, white_level)
    if "X" in how.raw and how.format == "TIFF":
        found.add(CHANNELS)
    if image.mode == "CMYK":
        found.add(CMYK)
    elif _has_profile(image):
        found.add(PROFILE)
    if not image.has_transparency_data:
        return image.convert("RGB"), found
    rgb, transparent = _on_white(image)
    return rgb, found | ({TRANSPARENT} if transparent else set())
