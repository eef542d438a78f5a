"""List the files of an image folder, `train/<class>/*` and `test/<class>/*`, without opening them.

Files without the name of an image are skipped and counted in a note. Examples are tables, texts,
and what desktops, servers and archives add (`.DS_Store`, `__MACOSX`, `@eaDir`, ...). An image that
cannot be used is an error.
"""

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cifar_jax.data.sources.contents import FolderOptions
from cifar_jax.data.sources.decode import MOST_BYTES, raise_problems
from cifar_jax.data.subset import parse_classes
from cifar_jax.errors import UserError, counted
from cifar_jax.inputs import is_part

EXTENSIONS = (
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm",
)  # fmt: skip
# An error, not skipped: the user would miss these images.
_OTHER_IMAGES = (
    "heic", "heif", "avif", "jxl", "jp2", "j2k", "svg", "eps", "ps", "psd", "ico", "tga", "dng",
    "cr2", "nef", "arw", "raw", "dcm", "nii", "exr", "hdr", "mat", "npy", "npz",
)  # fmt: skip
_SYSTEM = (
    "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "thumbs.db",
    "ehthumbs.db", "desktop.ini", "icon\r", "system volume information", "__pycache__",
)  # fmt: skip
_VALIDATION = ("val", "valid", "validation", "dev")
MOST_CLASSES = 1000  # the limit of `model.num_classes`


@dataclass(frozen=True)
class File:
    """A file of a class folder. `path` is relative to the image folder."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True)
class Listing:
    """Contents of an image folder.

    Attributes:
        files: by split ("train", "test" and maybe "val"), then by class, sorted by class and
            file name.
        names: of the chosen classes, in the user's order; by default all, sorted.
        total: number of class folders.
        notes: lines on unused files and folders.
    """

    files: dict[str, dict[str, list[File]]]
    names: tuple[str, ...]
    total: int
    notes: tuple[str, ...]


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"


class _Lister:
    """Walks a folder and collects skipped entries and problems."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped: list[str] = []
        self.problems: list[tuple[str, str]] = []

    def _entries(self, path: str) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Yield the entries of a directory by name, each with its path in the folder."""
        try:
            with os.scandir(self.folder / path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append((path, _cannot_be_read(error)))
            return
        for entry in entries:
            inner = f"{path}/{entry.name}"
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
                self.skipped.append(inner)
            else:
                yield entry, inner

    def class_names(self, split: str) -> list[str]:
        """Return the class folders of a split."""
        names = []
        for entry, path in self._entries(split):
            try:
                directory = entry.is_dir()
            except OSError as error:  # a link that leads to itself
                self.problems.append((path, _cannot_be_read(error)))
                continue
            if directory:
                names.append(entry.name)
            elif _suffix(entry.name) in EXTENSIONS + _OTHER_IMAGES:
                self.problems.append((path, "an image outside a class folder"))
            else:
                self.skipped.append(path)
        return names

    def class_files(self, path: str) -> list[File]:
        """Return the images of a class folder."""
        files = []
        before = len(self.problems)
        for entry, inner in self._entries(path):
            suffix = _suffix(entry.name)
            try:
                status = entry.stat()
            except OSError as error:
                if suffix in EXTENSIONS:
                    self.problems.append((inner, _cannot_be_read(error)))
                else:
                    self.skipped.append(inner)
                continue
            if problem := _problem(status, suffix):
                self.problems.append((inner, problem))
            elif suffix in EXTENSIONS:
                times = status.st_mtime_ns, status.st_ctime_ns
                files.append(File(inner, status.st_size, *times))
            else:
                self.skipped.append(inner)
        if not files and len(self.problems) == before:
            allowed = ", ".join(EXTENSIONS)
            self.problems.append((path, f"this class has no images; allowed file types: {allowed}"))
        return files


def _problem(status: os.stat_result, suffix: str) -> str | None:
    """Return why an entry of a class folder is an error, or None."""
    if stat.S_ISDIR(status.st_mode):
        return "a folder inside a class folder"
    if suffix in _OTHER_IMAGES:
        return f"this image format is not supported; allowed: {', '.join(EXTENSIONS)}"
    if suffix in EXTENSIONS:
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size > MOST_BYTES:
            return f"larger than {MOST_BYTES >> 20} MiB"
    return None


def _check_names(split: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the problems with the names of class folders."""
    by_look: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            yield f"{split}/{name}", "the class name is not printable"
        # Two Unicode spellings of one name look the same.
        other = by_look.setdefault(unicodedata.normalize("NFKC", name), name)
        if other != name:
            yield (
                f"{split}/{name}",
                f"two classes look the same, {other!a} and {name!a}; rename or merge them",
            )


def _find_splits(folder: Path, options: FolderOptions) -> tuple[dict[str, str], list[str]]:
    """Find the folders of the training, test and validation images.

    Returns:
        The folder's name by split, "train", "test" and, if chosen, "val". A note if other splits,
        such as `val/`, exist and are not used.

    Raises:
        UserError: a split is not a folder's name, or a folder is missing.
    """
    test_split, val_split = options.test_split, options.val_split
    if not is_part(test_split) or test_split == "train":
        raise UserError(f"--test-split {test_split}: must be the name of a folder next to train/")
    if val_split is not None and (not is_part(val_split) or val_split in ("train", test_split)):
        raise UserError(
            f"--val-split {val_split}: must be the name of a folder next to train/ and "
            f"{test_split}/"
        )
    existing = [name for name in ("test", *_VALIDATION) if os.path.isdir(folder / name)]
    splits = {"train": "train", "test": test_split}
    if val_split is not None:
        splits["val"] = val_split
    for split in splits.values():
        if not os.path.isdir(folder / split):
            hint = f"; --test-split {existing[0]} tests on {existing[0]}/" if existing else ""
            raise UserError(
                f"{folder / split}: no such folder; an image folder has train/<class>/* and "
                f"test/<class>/*{hint if split != 'train' else ''}"
            )
    unused = [f"{name}/" for name in existing if name not in splits.values()]
    notes = []
    if unused:
        notes.append(
            f"not used: {', '.join(unused)}; validation images come from {val_split or 'train'}/, "
            f"test images from {test_split}/"
        )
    return splits, notes


def list_folder(folder: Path, options: FolderOptions, classes: str | None = None) -> Listing:
    """List an image folder.

    Args:
        folder: with the splits.
        options: `test_split` and `val_split` name the other splits.
        classes: names separated by commas; other classes are ignored. None: all.

    Raises:
        UserError: a split is missing, or entries cannot be used; it names up to twenty.
    """
    splits, notes = _find_splits(folder, options)
    lister = _Lister(folder)
    found = {split: lister.class_names(name) for split, name in splits.items()}
    known = tuple(sorted(set().union(*found.values())))
    names = parse_classes(classes, known) if classes is not None else known
    files: dict[str, dict[str, list[File]]] = {}
    for split, name in splits.items():
        chosen = sorted({*found[split]} & {*names})
        if len(chosen) > MOST_CLASSES:
            raise UserError(f"{folder / name}: more than {MOST_CLASSES} classes")
        lister.problems += _check_names(name, chosen)
        files[split] = {label: lister.class_files(f"{name}/{label}") for label in chosen}
    pairs = [("train", "test"), ("test", "train"), ("val", "train")]
    for split, other in pairs[: len(splits)]:
        lister.problems += [
            (f"{splits[split]}/{label}", f"this class is missing in {splits[other]}/")
            for label in sorted({*files[split]} - {*files[other]})
        ]
    raise_problems(str(folder), lister.problems)
    if len(names) < 2:
        classes_found = counted(len(names), "class")
        raise UserError(f"{folder / 'train'}: {classes_found}; at least 2 are needed")
    if lister.skipped:
        count = len(lister.skipped)
        noun = "entry that is not an image" if count == 1 else "entries that are not images"
        notes.append(f"skipped {count:,} {noun}; the first: {lister.skipped[0]}")
    return Listing(files, names, len(known), tuple(notes))
