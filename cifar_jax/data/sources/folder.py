"""An image folder, `train/<class>/*` and `test/<class>/*`, decoded to uint8 arrays.

Files are read in a fixed order: classes by name, images by natural file name (2 before 10).
Grey, transparent, palette and CMYK images are converted to RGB, transparency is dropped, 16-bit
grey is scaled to 8 bits, of an animation the first picture is taken, and orientation tags are
ignored: the stored pixels count.
"""

import hashlib
import io
import os
import re
import stat
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_jax.data.sources.cache import open_or_build
from cifar_jax.data.sources.contents import (
    IMAGE_SHAPE,
    Contents,
    Dataset,
    Progress,
    silent,
)
from cifar_jax.device import cpu_count
from cifar_jax.errors import UserError
from cifar_jax.inputs import read_bytes

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm")
# What Pillow may take a file for, whatever its name says. Left to itself it would also run
# Ghostscript on PostScript, which is a program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_CLASSES = 1000  # as `model.num_classes` allows
MOST_BYTES = 128 << 20  # of a file
MOST_PIXELS = 89_478_485  # of an image that is to be resized; where Pillow begins to warn
SPLITS = ("train", "test")
_DESKTOP_FILES = ("thumbs.db", "desktop.ini")
_DECODER = 1  # raise it when the same files would decode to other pixels
_CHUNK = 256


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


Listing = dict[str, dict[str, list[_File]]]
"""Files by split, then by class."""


def dataset_name(folder: Path) -> str:
    """`folder-<NAME>`, with the folder's own name made safe for use in a file name."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip(".-")
    return f"folder-{safe[:64] or 'images'}"


def _unreadable(path: str | Path, error: Exception) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    reason = " ".join(reason.split()) or type(error).__name__
    return UserError(f"{path}: cannot be read ({reason})")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """Entries of a directory, by name, without hidden ones and those that desktops leave."""
    try:
        with os.scandir(directory) as found:
            kept = [
                entry
                for entry in found
                if not entry.name.startswith(".") and entry.name.lower() not in _DESKTOP_FILES
            ]
    except OSError as error:
        raise _unreadable(directory, error) from None
    return sorted(kept, key=lambda entry: entry.name)


def _is_image_name(name: str) -> bool:
    return name.rpartition(".")[2].lower() in EXTENSIONS


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads to itself
        raise _unreadable(entry.path, error) from None


def _list_class(directory: str) -> list[_File]:
    files = []
    for entry in _entries(directory):
        try:
            status = entry.stat()
        except OSError as error:
            raise _unreadable(entry.path, error) from None
        if not stat.S_ISREG(status.st_mode) or not _is_image_name(entry.name):
            raise UserError(
                f"{entry.path}: not an image file; a class folder may hold only "
                f"{', '.join(EXTENSIONS)}"
            )
        if status.st_size > MOST_BYTES:
            raise UserError(f"{entry.path}: larger than {MOST_BYTES >> 20} MiB")
        files.append(_File(entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    if not files:
        raise UserError(f"{directory}: this class has no images; allowed: {', '.join(EXTENSIONS)}")
    return files


def _list_split(folder: Path, split: str) -> dict[str, list[_File]]:
    directory = str(folder / split)
    if not os.path.isdir(directory):
        raise UserError(
            f"{directory}: no such folder; an image folder has train/<class>/* and test/<class>/*"
        )
    classes = {}
    alike: dict[str, str] = {}
    for entry in _entries(directory):
        if _is_directory(entry):
            if not entry.name.isprintable():
                raise UserError(f"{directory}: {entry.name!r} is not usable as a class name")
            # One name in two spellings of Unicode is a mistake: nobody could tell them apart.
            other = alike.setdefault(unicodedata.normalize("NFKC", entry.name), entry.name)
            if other != entry.name:
                raise UserError(
                    f"{directory}: two classes look the same, {other!a} and "
                    f"{entry.name!a}; rename or join them"
                )
            classes[entry.name] = _list_class(entry.path)
            if len(classes) > MOST_CLASSES:
                raise UserError(f"{directory}: more than {MOST_CLASSES} classes")
        elif _is_image_name(entry.name):
            raise UserError(f"{entry.path}: an image outside a class folder")
    return classes


def list_folder(folder: Path) -> Listing:
    """List an image folder without opening its files, sorted by class and plain file name.

    Raises:
        UserError: naming the missing split, the empty or unmatched class, or the first file
            that is not an image.
    """
    train, test = (_list_split(folder, split) for split in SPLITS)
    if lonely := sorted(set(train) ^ set(test)):
        has, lacks = SPLITS if lonely[0] in train else reversed(SPLITS)
        raise UserError(
            f"{folder / has / lonely[0]}: this class is missing in {folder / lacks}; "
            "both need the same classes"
        )
    if len(train) < 2:
        raise UserError(f"{folder / 'train'}: {len(train)} classes; at least 2 are needed")
    return {"train": train, "test": test}


def _key(folder: Path, listing: Listing, resize: bool) -> str:
    """Changes whenever a file is added, removed, renamed or edited."""
    digest = hashlib.sha256(f"{_DECODER} {resize}".encode())
    digest.update(os.fsencode(folder))
    for split in SPLITS:
        for name, files in listing[split].items():
            digest.update(b"\0" + os.fsencode(f"{split}/{name}"))
            for file in files:
                times = f"\0{file.size} {file.mtime_ns} {file.ctime_ns} "
                digest.update(times.encode() + os.fsencode(os.path.basename(file.path)))
    return digest.hexdigest()[:32]


def natural_order(path: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key of a file name in which runs of digits count as numbers: 2 before 10."""
    name = os.path.basename(path)
    parts = re.split(r"([0-9]+)", name)
    # Text lies at even places, numbers at odd ones, so places of two names compare alike.
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], name


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey to its lowest 8 bits.
        wide = np.clip(np.asarray(image, np.int64), 0, 65535)
        return Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def decode(path: str, resize: bool) -> np.ndarray:
    """Decode one file to uint8 (32, 32, 3).

    Args:
        path: of the file.
        resize: shrink or enlarge (Lanczos) the largest centred square of images of another size.

    Raises:
        UserError: naming the file, if it is no whole image, or of another size without `resize`.
    """
    height, width = IMAGE_SHAPE[:2]
    try:
        content = io.BytesIO(read_bytes(path, MOST_BYTES))
        with Image.open(content, formats=_FORMATS) as image:
            size = image.size
            if resize and size[0] * size[1] > MOST_PIXELS:
                raise UserError(
                    f"{path}: {size[0]}x{size[1]} pixels; at most {MOST_PIXELS:,} can be resized"
                )
            if size == (width, height) or resize:
                rgb = _to_rgb(image)
                if size != (width, height):
                    rgb = ImageOps.fit(rgb, (width, height), Image.Resampling.LANCZOS)
                return np.asarray(rgb)
    except UserError:
        raise
    except UnidentifiedImageError:
        kinds = ", ".join(_FORMATS)
        raise UserError(f"{path}: cannot be read (not an image; allowed: {kinds})") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise _unreadable(path, error) from None
    raise UserError(
        f"{path}: {size[0]}x{size[1]} pixels, but {width}x{height} are needed; "
        "--resize allows resizing"
    )


def decode_files(
    paths: list[str], resize: bool, progress: Progress, description: str
) -> np.ndarray:
    """Decode files in parallel to uint8 (len(paths), 32, 32, 3), in their order.

    Raises:
        UserError: naming the first file, in that order, that cannot be used.
    """
    images = np.empty((len(paths), *IMAGE_SHAPE), np.uint8)

    def work(start: int) -> int:
        chunk = paths[start : start + _CHUNK]
        for offset, path in enumerate(chunk):
            images[start + offset] = decode(path, resize)
        return start + len(chunk)

    # Pillow's warnings are about metadata, but for the one about an image that is far too large.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pool = ThreadPoolExecutor(cpu_count())
        try:
            for done in pool.map(work, range(0, len(paths), _CHUNK)):
                progress(description, done, len(paths))
        finally:
            pool.shutdown(cancel_futures=True)
    return images


def _decode_listing(listing: Listing, resize: bool, progress: Progress) -> Contents:
    arrays = {}
    classes = tuple(sorted(listing["train"]))
    for split in SPLITS:
        groups = [
            sorted((f.path for f in listing[split][name]), key=natural_order) for name in classes
        ]
        paths = [path for group in groups for path in group]
        labels = np.repeat(np.arange(len(classes)), [len(group) for group in groups])
        arrays[f"{split}_labels"] = labels.astype(np.int32)
        arrays[f"{split}_images"] = decode_files(
            paths, resize, progress, f"decoding {split} images"
        )
    return Contents(**arrays, classes=classes)


def load(
    folder: str | Path, root: Path, *, resize: bool = False, progress: Progress = silent
) -> Dataset:
    """Open an image folder; decoded on first use, from the cache `root` while nothing changes.

    Args:
        folder: has `train/<class>/*` and `test/<class>/*`, files of `EXTENSIONS`.
        root: the cache directory.
        resize: allow images that are not 32x32, see `decode`.
        progress: told about the decoding.

    Raises:
        UserError: one line naming the file or folder that cannot be used.
    """
    folder = Path(folder).expanduser().resolve()
    listing = list_folder(folder)
    name = dataset_name(folder)
    where = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    family = f"{name}-{where}-{'resized' if resize else 'plain'}-"
    return open_or_build(
        root,
        family + _key(folder, listing, resize),
        name,
        lambda: _decode_listing(listing, resize, progress),
        family=family,
    )
