"""Decode image files to uint8 arrays, with notes on changes.

`pixels.to_rgb` treats colours, transparency and more than 8 bits. Animations and files with pages
give their first picture. Images are rotated by their EXIF orientation.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_jax.data.sources import pixels
from cifar_jax.data.sources.contents import FolderOptions
from cifar_jax.data.sources.pixels import Unusable
from cifar_jax.device import cpu_count
from cifar_jax.errors import MachineError, UserError, counted, one_line
from cifar_jax.inputs import read_bytes

# Formats that Pillow may detect, whatever a file's name. By default it would also run Ghostscript
# on PostScript, which is a program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_BYTES = 128 << 20  # of a file
MOST_PIXELS = 89_478_485  # of an image to resize; Pillow warns of larger ones
VERSION = 2
"""Part of the cache key. Raise it when the same files decode to other pixels."""

_CHUNK = 256
_MOST_NAMED = 20
_MOST_CHARACTERS = 1100  # names and reasons in one line
_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

NOTES = {
    "constant": "{} of one constant colour",
    pixels.TRANSPARENT: "{} with transparent pixels, blended with white",
    pixels.DEPTH: "{} of more than 8 bits a channel, reduced to 8",
    pixels.CHANNELS: "{} with extra channels, which are dropped",
    pixels.CMYK: "{} in CMYK, converted to RGB without a colour profile",
    pixels.PROFILE: "{} with another colour profile or gamma than sRGB's, which is ignored",
    "frames": "{} with several frames or pages, reduced to the first",
    "turned": "{} rotated by the EXIF orientation",
    "cropped": "{} not square, cropped to the centred square",
    "resized": "{} resized to {side}x{side}",
}


@dataclass(frozen=True)
class Decoded:
    """One decoded file.

    Attributes:
        pixels: uint8 (size, size, 3).
        changes: keys of `NOTES` that apply to it.
        size: width and height before the crop, in pixels.
        preview: the whole picture, at most as large as asked; None if not asked for.
    """

    pixels: np.ndarray
    changes: frozenset[str]
    size: tuple[int, int]
    preview: Image.Image | None = None


def raise_problems(folder: str, problems: Sequence[tuple[str, str]]) -> None:
    """Raise one error with the number of unusable files and the names of up to twenty.

    Args:
        folder: of the files.
        problems: path in the folder and reason of each.

    Raises:
        UserError: there is a problem.
    """
    if not problems:
        return
    if len(problems) == 1:
        path, reason = problems[0]
        raise UserError(f"{os.path.join(folder, path)}: {reason}")
    by_reason: dict[str, list[str]] = {}
    named = length = 0
    for path, reason in problems[:_MOST_NAMED]:
        length += len(path) + 2 + (0 if reason in by_reason else len(reason))
        if named and length > _MOST_CHARACTERS:
            break
        by_reason.setdefault(reason, []).append(path)
        named += 1
    listed = "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in by_reason.items())
    more = f"; and {len(problems) - named:,} more" if named < len(problems) else ""
    raise UserError(f"{folder}: {len(problems):,} entries cannot be used: {listed}{more}")


_T = TypeVar("_T")


def _attempt(read: Callable[[], _T], default: _T) -> _T:
    """Return `read()`, or `default` if the file's metadata are damaged."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception:  # Pillow raises many types on damaged metadata
        return default


def _convert(image: Image.Image, options: FolderOptions, preview: int) -> Decoded:
    """Decode an opened file. Arguments as in `decode`."""
    side = options.size
    layout = pixels.stored(image)
    turn = _attempt(lambda: image.getexif().get(_ORIENTATION), None)
    image.load()
    rgb, changes = pixels.to_rgb(image, layout, options.white_level)
    if turn in _TURNS:
        changes.add("turned")
        if layout.format != "TIFF":  # Pillow itself rotates TIFF.
            rgb = rgb.transpose(_TURNS[turn])
    if _attempt(lambda: bool(getattr(image, "is_animated", False)), False):
        changes.add("frames")
    size, small = rgb.size, None
    if preview:
        small = ImageOps.contain(rgb, (preview, preview)) if max(size) > preview else rgb
    if size != (side, side):
        changes.add("resized")
        if rgb.width != rgb.height:
            changes.add("cropped")
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.LANCZOS)
    array = np.asarray(rgb)
    if (array == array[0, 0]).all():
        changes.add("constant")
    return Decoded(array, frozenset(changes), size, small)


def decode(source: str | bytes, options: FolderOptions, preview: int = 0) -> Decoded:
    """Decode one file.

    Args:
        source: its path or its content.
        options: `size` is that of the result. `resize` resamples (Lanczos) the largest centred
            square of images of another size.
        preview: largest width and height of the preview, in pixels; 0 for none.

    Raises:
        Unusable: the file is not a whole image, or has another size without `resize`.
        MachineError: out of memory.
    """
    side = options.size
    try:
        content = source if isinstance(source, bytes) else read_bytes(source, MOST_BYTES)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if (width, height) != (side, side):
                if not options.resize:
                    raise Unusable(
                        f"{width}x{height} pixels, but {side}x{side} are needed; --resize allows "
                        "resizing"
                    )
                if width * height > MOST_PIXELS:
                    raise Unusable(
                        f"{width}x{height} pixels; at most {MOST_PIXELS:,} can be resized"
                    )
            return _convert(image, options, preview)
    except UserError:
        raise
    except UnidentifiedImageError:
        kinds = ", ".join(_FORMATS)
        raise Unusable(
            f"cannot be read (not an image, or not of an allowed format: {kinds})"
        ) from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            where = "a picture" if isinstance(source, bytes) else source
            raise MachineError(f"{where}: not enough memory to decode it") from None
        reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        raise Unusable(f"cannot be read ({reason})") from None


@contextlib.contextmanager
def pillow_warnings() -> Iterator[None]:
    """Hide Pillow's warnings of metadata. Those of decompression bombs are errors.

    Warnings belong to the process, so threads that call `decode` run within this.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def change_notes(names: Sequence[str], changes: Sequence[frozenset[str]], side: int) -> list[str]:
    """Return a line for each kind of change, with the number of files and the first."""
    notes = []
    for kind, text in NOTES.items():
        if found := [name for name, of in zip(names, changes, strict=True) if kind in of]:
            line = text.format(counted(len(found), "image"), side=side)
            notes.append(f"{line}; the first: {found[0]}")
    return notes


def decode_files(
    folder: str,
    names: Sequence[str],
    options: FolderOptions,
    progress: Callable[[int], None],
) -> tuple[np.ndarray, list[str]]:
    """Decode files in parallel.

    Args:
        folder: of the files.
        names: their paths in it.
        options: see `decode`.
        progress: receives the number of decoded files.

    Returns:
        uint8 (len(names), size, size, 3), in their order, and notes on changes.

    Raises:
        UserError: files cannot be used; the message names them.
        MachineError: out of memory.
    """
    side = options.size
    images = np.empty((len(names), side, side, 3), np.uint8)
    changes: list[frozenset[str]] = [frozenset()] * len(names)
    problems: dict[int, str] = {}

    def work(start: int) -> int:
        chunk = names[start : start + _CHUNK]
        for row, name in enumerate(chunk, start):
            try:
                decoded = decode(os.path.join(folder, name), options)
            except Unusable as error:
                problems[row] = str(error)
                continue
            images[row], changes[row] = decoded.pixels, decoded.changes
        return start + len(chunk)

    with pillow_warnings():
        pool = ThreadPoolExecutor(cpu_count())
        try:
            for done in pool.map(work, range(0, len(names), _CHUNK)):
                progress(done)
        finally:
            pool.shutdown(cancel_futures=True)
    raise_problems(folder, [(names[row], problems[row]) for row in sorted(problems)])
    return images, change_notes(names, changes, side)
