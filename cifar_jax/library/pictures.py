"""Find and decode the pictures that a user names: files, folders, standard input."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cifar_jax.data.sources import decode
from cifar_jax.data.sources.contents import FolderOptions
from cifar_jax.data.sources.decode import MOST_BYTES, Decoded
from cifar_jax.data.sources.folder import image_files
from cifar_jax.data.sources.listing import EXTENSIONS
from cifar_jax.data.sources.pixels import Unusable
from cifar_jax.device import cpu_count
from cifar_jax.names import STANDARD_INPUT

CHUNK = 250


class Source(NamedTuple):
    """A picture to read: its name for the user, and its path or content. Or why there is none."""

    name: str
    content: str | bytes = b""
    error: str = ""


class Picture(NamedTuple):
    """A picture: decoded, or why it cannot be used."""

    name: str
    decoded: Decoded | None
    error: str = ""


def find_sources(names: Iterable[str], standard_input: BinaryIO) -> list[Source]:
    """Return the pictures of all names, in their order.

    Args:
        names: of files, of folders, whose images and folders count, and "-" for standard input.
        standard_input: read if a name is "-".
    """
    found: list[Source] = []
    for name in names:
        if name == STANDARD_INPUT:
            found.append(_read(standard_input))
        elif os.path.isdir(name):
            inside = [os.path.join(name, path) for path in image_files(Path(name))]
            allowed = ", ".join(EXTENSIONS)
            empty = Source(name, error=f"this folder has no images; allowed: {allowed}")
            found += [Source(path, path) for path in inside] or [empty]
        else:
            found.append(Source(name, name))
    return found


def _read(file: BinaryIO) -> Source:
    content, name = file.read(MOST_BYTES + 1), "standard input"
    if len(content) > MOST_BYTES:
        return Source(name, error=f"larger than {MOST_BYTES >> 20} MiB")
    return Source(name, content) if content else Source(name, error="is empty")


def decode_sources(
    sources: Sequence[Source], options: FolderOptions, previews: int, preview: int
) -> Iterator[list[Picture]]:
    """Decode pictures in parallel, and yield them in order, up to `CHUNK` together.

    Args:
        options, preview: see `decode.decode`.
        previews: number of pictures, from the first, that get a preview.
    """

    def one(number: int) -> Picture:
        source = sources[number]
        if source.error:
            return Picture(source.name, None, source.error)
        try:
            size = preview if number < previews else 0
            return Picture(source.name, decode.decode(source.content, options, size))
        except Unusable as error:
            return Picture(source.name, None, str(error))

    with decode.pillow_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
        for start in range(0, len(sources), CHUNK):
            yield list(pool.map(one, range(start, min(start + CHUNK, len(sources)))))
