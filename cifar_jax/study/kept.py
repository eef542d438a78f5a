"""The copy of the experiment file in the directory of a run or study."""

import hashlib
import itertools
from pathlib import Path

from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import read_bytes
from cifar_jax.names import SOURCE
from cifar_jax.study.file import LARGEST, ExperimentFile

LONGEST = 60  # characters of a line to show whole


def check_unchanged(file: ExperimentFile, sha256: str | None, where: Path) -> None:
    """Check that an experiment file is the one that a run or study began with.

    Args:
        file: the given file.
        sha256: recorded digest.
        where: directory of the run or study, or one inside it.

    Raises:
        UserError: the file has changed; the message has the first line that differs.
    """
    if sha256 == file.sha256:
        return
    kept = _kept(where, sha256)
    differs = f"; {_difference(kept, file.source)}" if kept is not None else ""
    raise UserError(
        f"{file.path}: is not the file with which {where} began{differs}; restore it, or choose "
        "another directory"
    )


def _kept(where: Path, sha256: str | None) -> str | None:
    """Return the copy with a digest, in a directory or above it, or None."""
    for directory in (where, *where.parents[:4]):
        try:
            content = read_bytes(directory / SOURCE, LARGEST)
        except (OSError, ValueError):
            continue
        if hashlib.sha256(content).hexdigest() == sha256:
            return content.decode("utf-8", "replace")
    return None


def _difference(before: str, after: str) -> str:
    """Return the first line in which two different texts differ, in both texts."""
    lines = [text.splitlines(keepends=True) for text in (before, after)]
    pairs = enumerate(itertools.zip_longest(*lines, fillvalue=""), 1)
    number, old, new = next((n, a, b) for n, (a, b) in pairs if a != b)
    if old.rstrip() != new.rstrip():
        old, new = old.rstrip(), new.rstrip()
    differ = (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    same = next(differ, min(len(old), len(new)))
    if max(len(old), len(new)) > LONGEST:  # `shown` leaves out the middle.
        old, new = (line[max(0, same - LONGEST // 4) :] for line in (old, new))
    return f"line {number}: {shown(old)} -> {shown(new)}"
