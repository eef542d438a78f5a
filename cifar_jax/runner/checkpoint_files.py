"""The files of a checkpoint: its position in training as a name, its record, its digests.

Only some of Orbax's files have checksums. So each checkpoint has a file `SHA256SUMS` with the
digest of every other file, in the format of `sha256sum`. All digests are checked before any file
is decoded.
"""

import re
from pathlib import Path
from typing import NamedTuple

from cifar_jax.failures import is_lack
from cifar_jax.inputs import read_bytes
from cifar_jax.storage import sha256, sync

SEAL = "SHA256SUMS"
STATE, RECORD = "state", "record"
_LARGEST_SEAL = 1 << 20


class Position(NamedTuple):
    """A checkpoint's position in training. Later positions compare as larger.

    Attributes:
        epoch: finished epochs.
        steps: finished steps of the next epoch.
    """

    epoch: int
    steps: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}+{self.steps}" if self.steps else str(self.epoch)


def metadata_path(checkpoint: Path) -> Path:
    """Return the path of a checkpoint's record."""
    return checkpoint / RECORD / "metadata"


def _digests(checkpoint: Path, *, durable: bool = False) -> dict[str, str]:
    """Return the SHA-256 of a checkpoint's files by path, without `SHA256SUMS` and hidden files."""
    return {
        path.relative_to(checkpoint).as_posix(): sha256(path, durable=durable)
        for path in sorted(checkpoint.rglob("*"))
        if not path.is_dir() and path.name != SEAL and not path.name.startswith(".")
    }


def _seal_lines(digests: dict[str, str]) -> list[str]:
    return [f"{digest}  {name}" for name, digest in digests.items()]


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint's files to the disk, and write their digests to `SHA256SUMS`."""
    lines = _seal_lines(_digests(checkpoint, durable=True))
    (checkpoint / SEAL).write_text("\n".join([*lines, ""]), encoding="utf-8")
    sync(checkpoint / SEAL)
    for path in (*checkpoint.rglob("*"), checkpoint):
        if path.is_dir():
            sync(path)


def damage(checkpoint: Path) -> str | None:
    """Describe a checkpoint's damage in a few words. Return None if all digests match."""
    try:
        lines = read_bytes(checkpoint / SEAL, _LARGEST_SEAL).decode("utf-8").split("\n")
        found = _digests(checkpoint)
    except OSError as error:
        if is_lack(error):
            raise
        name = Path(error.filename).name if error.filename else "a file"
        return f"{name} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"{SEAL} is not what was written"
    if lines == [*_seal_lines(found), ""]:
        return None
    sealed = {line[66:]: line[:64] for line in lines if line}
    wrong = [name for name in found if sealed.get(name) != found[name]]
    return f"{wrong[0][:100] if wrong and sealed else SEAL} is not what was written"


def saved_positions(directory: Path) -> list[Position]:
    """Return the positions of all checkpoints in a directory, newest first: `7+120`, `7`, `6`."""
    names = (p.name for p in directory.glob("[0-9]*") if p.is_dir())
    found = (re.fullmatch(r"(0|[1-9]\d{0,9})(?:\+([1-9]\d{0,9}))?", n, re.ASCII) for n in names)
    return sorted((Position(int(m[1]), int(m[2] or 0)) for m in found if m), reverse=True)


def newest_intact(directory: Path) -> Position | None:
    """Return the position of the newest undamaged checkpoint, or None."""
    return next((p for p in saved_positions(directory) if damage(directory / str(p)) is None), None)
