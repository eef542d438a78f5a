"""Convert files of every mode and depth to 8-bit RGB: the right values, or an error."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from cifar_jax.data.sources.contents import PLAIN, FolderOptions
from cifar_jax.data.sources.decode import Decoded, decode
from cifar_jax.data.sources.listing import EXTENSIONS
from cifar_jax.errors import UserError

RAMP = np.arange(1024).reshape(32, 32)
GREY = (RAMP // 4).astype(np.uint8)
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (32, 32, 3), np.uint8)
PHOTOMETRIC, BITS, ORIENTATION = 262, 258, 0x0112


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tagged(tiff: bytes, tag: int, old: int, new: int) -> bytes:
    """Change the value of a tag with one short number in a little-endian TIFF."""
    entry = struct.pack("<HHI", tag, 3, 1)
    assert tiff.count(entry + struct.pack("<H", old)) == 1
    return tiff.replace(entry + struct.pack("<H", old), entry + struct.pack("<H", new))


def png(bits: int, kind: int, pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 32x32 from its raw pixels, with further chunks."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, bits, kind, 0, 0, 0)),
            *(chunk(*each) for each in chunks),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(content: bytes, options: FolderOptions = PLAIN) -> Decoded:
        (tmp_path / "x.png").write_bytes(content)
        return decode(str(tmp_path / "x.png"), options)

    return read


def grey(decoded: Decoded) -> np.ndarray:
    """The one channel of a grey image."""
    pixels = decoded.pixels
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.repeat(pixels[..., :1], 3, axis=2))
    return pixels[..., 0]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_name_is_read(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension.upper()}"
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(path)
    np.testing.assert_allclose(decode(str(path), PLAIN).pixels, 200, atol=2)


# --- more than 8 bits ----------------------------------------------------------------------------

WIDE = (RAMP * 64 + 63).astype(np.uint16)
SCALED = np.floor(WIDE.astype(float) * 255 / 65535 + 0.5)


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(WIDE), "PNG"),
        encoded(Image.fromarray(WIDE), "TIFF"),
        encoded(Image.fromarray(WIDE), "TIFF", compression="tiff_lzw"),
        b"P5\n32 32\n65535\n" + WIDE.astype(">u2").tobytes(),
    ],
    ids=["PNG", "TIFF", "TIFF lzw", "PGM"],
)
def test_grey_of_16_bits_is_scaled_from_65535(read: Any, content: bytes) -> None:
    found = read(content)
    np.testing.assert_array_equal(grey(found), SCALED)
    assert found.changes == {"depth"}


def test_big_endian_tiff_is_scaled_equally(read: Any) -> None:
    image = Image.frombytes("I;16B", (32, 32), WIDE.astype(">u2").tobytes())
    np.testing.assert_array_equal(grey(read(encoded(image, "TIFF"))), SCALED)


def test_8_bits_stored_in_16_come_back(read: Any) -> None:
    found = read(encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"))
    np.testing.assert_array_equal(grey(found), GREY)


def test_pgm_has_a_white_level(read: Any) -> None:
    found = read(b"P5\n32 32\n4095\n" + (RAMP * 4).astype(">u2").tobytes())
    np.testing.assert_allclose(grey(found), RAMP * 4 * 255 / 4095, atol=0.51)


def test_tiff_of_12_bits_has_a_white_level(read: Any) -> None:
    first, second = (RAMP * 4).astype(np.uint16).reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    content = np.zeros(2048, np.uint8)
    content[:1536] = packed.astype(np.uint8).ravel()
    image = Image.frombytes("I;16", (32, 32), content.tobytes())
    found = read(tagged(encoded(image, "TIFF"), BITS, 16, 12))
    np.testing.assert_allclose(grey(found), RAMP * 4 * 255 / 4095, atol=0.51)


def test_tiff_in_which_zero_is_white_is_inverted(read: Any) -> None:
    wide = tagged(encoded(Image.fromarray(WIDE), "TIFF"), PHOTOMETRIC, 1, 0)
    np.testing.assert_array_equal(grey(read(wide)), 255 - SCALED)
    narrow = tagged(encoded(Image.fromarray(GREY), "TIFF"), PHOTOMETRIC, 1, 0)
    np.testing.assert_array_equal(grey(read(narrow)), 255 - GREY)


UNKNOWN = {
    "12 in 16": (encoded(Image.fromarray((RAMP * 4).astype(np.uint16)), "PNG"), 4092),
    "8 in 16": (encoded(Image.fromarray(GREY.astype(np.uint16)), "TIFF"), 255),
    "8 in 32": (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), 255),
    "float": (encoded(Image.fromarray((RAMP / 1023).astype(np.float32)), "TIFF"), 1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_range_is_refused_and_can_be_given(read: Any, name: str) -> None:
    content, white = UNKNOWN[name]
    with pytest.raises(UserError, match=rf"\b{white}\b.*--white-level"):
        read(content)
    found = grey(read(content, FolderOptions(white_level=white)))
    np.testing.assert_allclose(found, np.linspace(0, 255, 1024).reshape(32, 32), atol=1)
    assert (found.min(), found.max()) == (0, 255)
    with pytest.raises(UserError, match="grey values from 0 to"):
        read(content, FolderOptions(white_level=white / 2))


def test_a_dark_image_of_16_bits_can_be_kept(read: Any) -> None:
    dark = encoded(Image.fromarray((RAMP * 4).astype(np.uint16)), "PNG")
    found = read(dark, FolderOptions(white_level=65535))
    np.testing.assert_allclose(grey(found), RAMP * 4 / 257, atol=0.51)


def test_a_black_image_of_16_bits_is_black(read: Any) -> None:
    found = read(encoded(Image.fromarray(np.zeros((32, 32), np.uint16)), "PNG"))
    assert (found.pixels.max(), found.changes) == (0, {"depth", "constant"})


def test_unsigned_32_bits_are_not_negative(read: Any) -> None:
    values = (RAMP * 4_000_000).astype(np.uint32)
    signed = encoded(Image.fromarray(values.view(np.int32)), "TIFF")
    content = tagged(signed, 339, 2, 1)
    found = read(content, FolderOptions(white_level=float(values.max())))
    np.testing.assert_allclose(grey(found), RAMP * 255 / 1023, atol=0.51)
    with pytest.raises(UserError, match="grey values from -"):
        read(signed, FolderOptions(white_level=float(values.max())))


def test_values_that_are_no_numbers_are_refused(read: Any) -> None:
    values = np.full((32, 32), np.nan, np.float32)
    with pytest.raises(UserError, match="not finite"):
        read(encoded(Image.fromarray(values), "TIFF"), FolderOptions(white_level=1.0))


def test_signed_8_bits_are_refused(read: Any) -> None:
    with pytest.raises(UserError, match="signed"):
        read(encoded(Image.fromarray(GREY), "TIFF", tiffinfo={339: 2}))


def test_colours_of_16_bits_keep_the_high_byte(read: Any) -> None:
    found = read(png(16, 2, RGB.astype(">u2") * 257))
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.changes == {"depth"}
    dark = png(16, 2, (RGB * np.uint16(16)).astype(">u2"))
    with pytest.raises(UserError, match=r"no value is above 4095 .*--white-level"):
        read(dark)
    kept = read(dark, FolderOptions(white_level=65535))
    np.testing.assert_array_equal(kept.pixels, RGB // 16)


# --- other modes ---------------------------------------------------------------------------------


def test_grey_and_bits_become_rgb(read: Any) -> None:
    np.testing.assert_array_equal(grey(read(encoded(Image.fromarray(GREY), "PNG"))), GREY)
    bits = read(encoded(Image.fromarray(GREY > 127), "PNG"))
    np.testing.assert_array_equal(grey(bits), np.where(GREY > 127, 255, 0))
    assert bits.changes == frozenset()


def test_palette_becomes_rgb(read: Any) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    found = read(encoded(palette, "PNG"))
    np.testing.assert_array_equal(found.pixels, np.asarray(palette.convert("RGB")))
    assert found.changes == frozenset()


def test_cmyk_becomes_rgb(read: Any) -> None:
    ink = RNG.integers(0, 256, (32, 32, 4), np.uint8)
    found = read(encoded(Image.fromarray(ink, "CMYK"), "TIFF"))
    light = (255 - ink.astype(float)) / 255
    np.testing.assert_allclose(found.pixels, 255 * light[..., :3] * light[..., 3:], atol=1)
    assert found.changes == {"cmyk"}
    jpeg = read(encoded(Image.fromarray(np.zeros((32, 32, 4), np.uint8), "CMYK"), "JPEG"))
    np.testing.assert_allclose(jpeg.pixels, 255, atol=2)


def test_luminance_and_chroma_become_rgb(read: Any) -> None:
    try:
        found = read(encoded(Image.new("YCbCr", (32, 32), (120, 90, 200)), "TIFF"))
    except UserError:
        return  # Older Pillow does not read what it writes.
    wanted = (120 + 1.402 * 72, 120 - 0.344136 * -38 - 0.714136 * 72, 120 + 1.772 * -38)
    np.testing.assert_allclose(found.pixels[0, 0], wanted, atol=1)


def test_lab_becomes_rgb(read: Any) -> None:
    # CIE L* = 50 is 18.4 % of white, which sRGB stores as 119; a* = b* = 0 is grey.
    found = read(encoded(Image.new("LAB", (32, 32), (128, 128, 128)), "TIFF"))
    np.testing.assert_allclose(found.pixels[0, 0], 119, atol=2)


# --- transparency --------------------------------------------------------------------------------


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Each channel blended with white, as real numbers."""
    share = alpha[..., None] / 255
    blended: np.ndarray = colour * share + 255 * (1 - share)
    return blended


ALPHA = RNG.integers(0, 256, (32, 32), np.uint8)
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparent_colours_are_blended_with_white(read: Any, kind: str) -> None:
    found = read(encoded(RGBA, kind))
    np.testing.assert_allclose(found.pixels, on_white(RGB, ALPHA), atol=1.01)
    assert found.changes == {"transparent"}
    assert (found.pixels[ALPHA == 0] == 255).all()


def test_transparent_grey_is_blended_with_white(read: Any) -> None:
    found = read(encoded(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"))
    np.testing.assert_allclose(grey(found), on_white(GREY[..., None], ALPHA)[..., 0], atol=1.01)
    assert found.changes == {"transparent"}


def test_premultiplied_colours_are_blended_with_white(read: Any) -> None:
    scaled = np.rint(RGB * (ALPHA[..., None] / 255)).astype(np.uint8)
    image = Image.fromarray(np.dstack([scaled, ALPHA]))
    found = read(tagged(encoded(image, "TIFF"), 338, 2, 1))
    seen = ALPHA > 16  # Below, too little is left of the colour.
    np.testing.assert_allclose(found.pixels[seen], on_white(RGB, ALPHA)[seen], atol=2)


def test_an_opaque_alpha_changes_nothing(read: Any) -> None:
    found = read(encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"))
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.changes == frozenset()


def test_palette_with_transparency_is_blended_with_white(read: Any) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    found = read(encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))))
    alpha = np.asarray(palette) * np.uint8(16)
    wanted = on_white(np.asarray(palette.convert("RGB")), alpha)
    np.testing.assert_allclose(found.pixels, wanted, atol=1.01)
    assert found.changes == {"transparent"}


def test_one_transparent_value_is_white(read: Any) -> None:
    key = struct.pack(">H", 40)
    found = read(png(8, 0, GREY, (b"tRNS", key)))
    np.testing.assert_array_equal(grey(found), np.where(GREY == 40, 255, GREY))
    wide = GREY.astype(">u2") * 257
    found = read(png(16, 0, wide, (b"tRNS", struct.pack(">H", 40 * 257))))
    np.testing.assert_array_equal(grey(found), np.where(GREY == 40, 255, GREY))
    colours = (b"tRNS", struct.pack(">HHH", *RGB[3, 4].tolist()))
    assert read(png(8, 2, RGB, colours)).pixels[3, 4].tolist() == [255, 255, 255]
    with pytest.raises(UserError, match="one transparent colour"):
        read(png(16, 2, RGB.astype(">u2") * 257, colours))


# --- what else a file may hold -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_the_first_is_used(read: Any, kind: str) -> None:
    frames = [Image.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (40, 200)]
    found = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    np.testing.assert_allclose(found.pixels, 40, atol=2)
    assert found.changes == {"frames", "constant"}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_viewers_turn_them(read: Any, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(np.dstack([GREY, GREY.T, GREY]))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    found = read(encoded(image, kind, exif=exif, **lossless))
    image.getexif()[ORIENTATION] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_allclose(found.pixels, turned, atol=40 if kind == "JPEG" else 0)
    assert found.changes == (frozenset() if orientation == 1 else {"turned"})


def test_damaged_metadata_do_not_matter(read: Any) -> None:
    content = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read(content).pixels, RGB)


def test_other_colour_profiles_than_srgb_are_noted(read: Any) -> None:
    image = Image.fromarray(RGB)
    for profile in (b"... sRGB IEC61966-2.1 ...", "x sRGB".encode("utf-16-be")):
        assert read(encoded(image, "PNG", icc_profile=profile)).changes == frozenset()
    other = read(encoded(image, "PNG", icc_profile=b"... Display P3 ..."))
    assert other.changes == {"profile"}
    np.testing.assert_array_equal(other.pixels, RGB)
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    assert read(png(8, 2, RGB, gamma)).changes == {"profile"}
    assert read(png(8, 2, RGB, (b"gAMA", struct.pack(">I", 45_455)))).changes == frozenset()


def test_resize_takes_the_centre_square(read: Any) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    found = read(encoded(Image.fromarray(wide), "PNG"), FolderOptions(resize=True))
    # The filter rings within a few pixels of the square's edge.
    np.testing.assert_array_equal(found.pixels[:, 4:28], 255)
    assert found.pixels.min() > 200
    assert found.changes == {"resized", "cropped"}
