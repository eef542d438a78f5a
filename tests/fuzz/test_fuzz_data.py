"""Any image, image folder, archive or cache entry is read whole, or is an error of one line."""

import dataclasses
import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import damaged, fuzz, harmless, texts
from hypothesis import assume, event
from hypothesis import strategies as st
from PIL import Image

from cifar_jax.data.sources import cache, decode, folder
from cifar_jax.data.sources.contents import Contents, FolderOptions, fingerprint
from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _images() -> list[bytes]:
    """Small files of every format and many modes, some of another size."""
    rgb = Image.fromarray(PIXELS)
    found = [encoded(rgb, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")]
    found += [encoded(rgb.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    found += [encoded(rgb.convert(mode), "TIFF") for mode in ("CMYK", "YCbCr", "LAB", "I", "F")]
    found.append(encoded(rgb.convert("CMYK"), "JPEG"))
    found.append(encoded(rgb.quantize(16), "PNG", transparency=bytes(range(16))))
    found.append(encoded(rgb, "TIFF", compression="tiff_lzw"))
    found.append(encoded(rgb, "PNG", interlace=1))
    frames = [rgb.rotate(90 * i) for i in range(3)]
    found.append(encoded(rgb, "GIF", save_all=True, append_images=frames))
    found.append(encoded(rgb.resize((40, 30)), "PNG"))
    found.append(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n%%EOF\n")
    return found


def an_image(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, options: FolderOptions
) -> None:
    base = str(tmp_path_factory.getbasetemp())
    path = os.path.join(base, "fuzzed.png")
    Path(path).write_bytes(content)
    try:
        (pixels,), notes = decode.decode_files(base, ["fuzzed.png"], options, lambda _: None)
    except UserError as error:
        refused(error, path)
    else:
        event("read")
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8
        assert all(harmless(note) and note.endswith("fuzzed.png") for note in notes)


def refused(error: UserError, named: str) -> None:
    """The error is one line that names the file or folder."""
    event("refused")
    assert harmless(str(error))
    assert "Traceback" not in str(error)
    assert named in str(error)


test_an_image, test_an_image_long = fuzz(
    an_image,
    quick=120,
    long=3000,
    content=st.sampled_from(_images()).flatmap(damaged) | st.binary(max_size=200),
    options=st.builds(
        FolderOptions,
        resize=st.booleans(),
        white_level=st.none() | st.sampled_from([1e-6, 1.0, 255.0, 4095.0, 65535.0, 2.0**32]),
    ),
)

_NAMES = st.one_of(
    texts,
    st.sampled_from(
        ["a", "b", "A", "caf\u00e9", "cafe\u0301", "1.png", "x.PNG", "x.txt", ".x", "a b"]
    ),
).filter(lambda t: t not in ("", ".", "..") and "/" not in t and "\0" not in t and len(t) < 60)
_DEEDS = st.sampled_from(
    ["image", "folder", "text", "empty", "fifo", "loop", "dangling", "link up", "remove", "damage"]
)


def a_folder(tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, str, str]]) -> None:
    """Two classes of one image, and a few deeds of `(what, where, name)`."""
    base = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.rmtree(base, ignore_errors=True)
    root = base / "images"
    good = _GOOD
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            (root / split / name / "1.png").write_bytes(good)
    for what, where, name in deeds:
        _do(
            what,
            root
            / where
            / os.fsdecode(name.encode("utf-8", "replace" if _odd(name) else "surrogateescape")),
            good,
        )
    try:
        data = folder.load(root, base / "cache")
    except UserError as error:
        refused(error, str(root))
        assert not list((base / "cache").glob("*/contents.json"))
    else:
        event("read")
        assert len(data.train_labels) == len(data.train_images) >= 2
        assert all(harmless(name) and name for name in data.classes)


_GOOD = encoded(Image.fromarray(PIXELS), "PNG")


def _odd(name: str) -> bool:
    """Return whether a name has surrogates that encode no byte."""
    return any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in name)


def _do(what: str, path: Path, good: bytes) -> None:
    if what not in ("remove", "damage") and os.path.lexists(path):
        return  # Writing to a pipe would wait.
    try:
        match what:
            case "image":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(good)
            case "folder":
                path.mkdir(parents=True)
            case "text" | "empty":
                path.write_text("x" * (what == "text"))
            case "fifo":
                os.mkfifo(path)
            case "loop":
                path.symlink_to(path.name)
            case "dangling":
                path.symlink_to("nowhere")
            case "link up":
                path.symlink_to("../..")
            case "remove":
                shutil.rmtree(path.parent)
            case "damage" if path.with_name("1.png").is_file():
                path.with_name("1.png").write_bytes(good[: len(good) // 2])
    except (OSError, UnicodeError):
        pass  # The system has no such file; the other deeds remain.


_PLACES = st.sampled_from(
    ["", "train", "train/a", "train/b", "test", "test/a", "train/c", "test/c"]
)

test_a_folder, test_a_folder_long = fuzz(
    a_folder, quick=25, long=1000, deeds=st.lists(st.tuples(_DEEDS, _PLACES, _NAMES), max_size=4)
)

BATCH = 2
SIZE = BATCH * 3073
SPEC = dataclasses.replace(CIFAR10, counts=(5 * BATCH, BATCH))
MEMBERS = [*(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6))]
MEMBERS.append("cifar-10-batches-bin/test_batch.bin")


def _tar(extra: list[tarfile.TarInfo], kind: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for info in extra:
            # Not by addfile, which would insist on as many bytes as the header says.
            stream.write(info.tobuf(kind) + bytes(min(info.size + -info.size % 512, 1024)))
            tar.offset = stream.tell()
        for name in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size = SIZE
            tar.addfile(info, io.BytesIO(bytes(SIZE)))
    return stream.getvalue()


_TARS = [_tar([], kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
# Damage to headers matters more than damage to pixels.
_HEADERS = [range(i * (512 + 6656), i * (512 + 6656) + 512) for i in range(6)]


@st.composite
def archives(draw: Any) -> bytes:
    """Gzipped tars with damaged headers, hostile members, or damage to the compressed bytes."""
    how = draw(st.integers(0, 2))
    if how == 0:
        content = bytearray(draw(st.sampled_from(_TARS)))
        for _ in range(draw(st.integers(1, 3))):
            header = draw(st.sampled_from(_HEADERS))
            at = header.start + draw(st.sampled_from([0, 100, 124, 135, 156, 157, 257, 345, 482]))
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            block = content[header.start : header.start + 512]
            block[148:156] = b" " * 8
            content[header.start + 148 : header.start + 156] = b"%06o\0 " % sum(block)
        return gzip.compress(bytes(content), 1)
    if how == 1:
        members = draw(st.lists(_MEMBERS, min_size=1, max_size=3))
        try:
            return gzip.compress(_tar(members, draw(st.sampled_from([0, 1, 2]))), 1)
        except (ValueError, UnicodeError, OverflowError):
            assume(False)
    return draw(damaged(gzip.compress(_TARS[0], 1)))


def _member(name: str, kind: bytes, link: str, size: int, headers: dict[str, str]) -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, link, size, headers
    return info


_MEMBERS = st.builds(
    _member,
    texts | st.sampled_from([*MEMBERS, "cifar-10-batches-py/data_batch_1", "/x", "a/../../b"]),
    st.sampled_from([bytes([c]) for c in b"01234567LKSVgxXN"]),
    texts,
    st.sampled_from([0, 0, 1, 512, 1000, SIZE, SIZE + 1, 2**31, 2**40]),
    st.dictionaries(
        st.sampled_from(["size", "path", "GNU.sparse.major", "GNU.sparse.size", "GNU.sparse.map"]),
        st.sampled_from(["-1", "x", "1", "99999999999", "0,1", MEMBERS[0], "../x"]),
        max_size=2,
    ),
)


def an_archive(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    base = tmp_path_factory.getbasetemp() / "archive"
    base.mkdir(exist_ok=True)
    path = base / "fuzzed.tar.gz"
    path.write_bytes(content)
    try:
        contents = SPEC.read(SPEC, [path])
    except UserError as error:
        refused(error, str(path))
    else:
        event("read")
        assert contents.train_images.shape == (5 * BATCH, 32, 32, 3)
        assert contents.test_labels.max() < 10
    assert list(base.iterdir()) == [path]


test_an_archive, test_an_archive_long = fuzz(an_archive, quick=80, long=2000, content=archives())


def _entry() -> dict[str, bytes]:
    """The files of a cache entry."""
    labels = np.array([0, 1], np.int32)
    contents = Contents(PIXELS[None].repeat(2, 0), labels, PIXELS[None], labels[:1], ("a", "b"))
    files = {f"{name}.npy": io.BytesIO() for name in cache.ARRAYS}
    for name, stream in files.items():
        np.save(stream, getattr(contents, name[:-4]))
    record = {"format": 1, "classes": ["a", "b"], "fingerprint": fingerprint(contents)}
    text = json.dumps(record).encode()
    return {**{k: v.getvalue() for k, v in files.items()}, "contents.json": text}


_ENTRY = _entry()


@st.composite
def entries(draw: Any) -> tuple[str, bytes]:
    """One damaged file of a cache entry, mostly in its header."""
    name = draw(st.sampled_from(sorted(_ENTRY)))
    content = _ENTRY[name]
    if draw(st.booleans()) or len(content) < 200:
        return name, draw(damaged(content[:128])) + content[128:]
    shape = draw(
        st.sampled_from(["(2,32,32,3)", "(-1,)", "(10**9,)", "(" * 90, "(9" + "9" * 40 + ",)"])
    )
    kind = draw(
        st.sampled_from(["|u1", "<i4", "|O", "<f8", "V9", "<U99999999", "O", "[('a','|O')]"])
    )
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content[128:]


def a_cache_entry(tmp_path_factory: pytest.TempPathFactory, changed: tuple[str, bytes]) -> None:
    base = tmp_path_factory.getbasetemp() / "entry"
    base.mkdir(exist_ok=True)
    for name, content in {**_ENTRY, changed[0]: changed[1]}.items():
        (base / name).write_bytes(content)
    found = cache.read(base, "x")
    event("read" if found else "refused")
    if found is not None:  # then it is what was written
        np.testing.assert_array_equal(found.train_images, PIXELS[None].repeat(2, 0))
        assert found.train_labels.tolist() == [0, 1]
        assert found.classes == ("a", "b")


test_a_cache_entry, test_a_cache_entry_long = fuzz(
    a_cache_entry, quick=60, long=1000, changed=entries()
)
