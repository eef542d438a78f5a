"""Published datasets, on small archives of the same layout, without requests to the network."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from cifar_jax.data import dataset
from cifar_jax.data.sources import archives, prepared, published
from cifar_jax.data.sources.contents import Contents, Dataset, silent
from cifar_jax.data.sources.prepared import prepare, read_prepared
from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.data.sources.spec import File, Published, damage
from cifar_jax.errors import UserError

BATCH = 12
FILE_NAME = CIFAR10.files[0].name
NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def records(seed: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Labels, images and the bytes of one file, written record by record."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, BATCH).astype(np.int32)
    images = rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    content = b""
    for label, image in zip(labels, images, strict=True):
        content += bytes([label])
        for channel in range(3):
            content += image[:, :, channel].tobytes()
    return labels, images, content


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_archive(path: Path, files: dict[str, bytes]) -> Published:
    """Write the files in the given order and describe the archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            add(tar, name, content)
    return describe(path)


def describe(path: Path, url: str = "http://127.0.0.1:9/" + FILE_NAME) -> Published:
    content = path.read_bytes()
    file = File(url, len(content), hashlib.sha256(content).hexdigest())
    return dataclasses.replace(CIFAR10, files=(file,), counts=(5 * BATCH, BATCH))


def read(path: Path) -> Contents:
    spec = describe(path)
    return spec.read(spec, [path])


def download(directory: Path, spec: Published) -> Path:
    return archives._download(directory, spec, spec.files[0], silent)


def members(*, leave_out: str = "") -> dict[str, bytes]:
    """The six files, in another order than they are read, and one more."""
    files = {f"cifar-10-batches-bin/{n}": records(i)[2] for i, n in enumerate(NAMES)}
    files.pop(f"cifar-10-batches-bin/{leave_out}", None)
    return {"cifar-10-batches-bin/readme.html": b"x", **dict(reversed(files.items()))}


def check(data: Contents | Dataset) -> None:
    """The images and labels of the files, in the files' order."""
    parts = [records(i) for i in range(6)]
    np.testing.assert_array_equal(data.train_labels, np.concatenate([p[0] for p in parts[:5]]))
    np.testing.assert_array_equal(data.train_images, np.concatenate([p[1] for p in parts[:5]]))
    np.testing.assert_array_equal(data.test_labels, parts[5][0])
    np.testing.assert_array_equal(data.test_images, parts[5][1])
    assert data.classes[3] == "cat"
    assert len(data.classes) == 10


def load(home: Path, archive: Published, **options: object) -> Dataset:
    return published.load(archive, home.parent / "cache", data_dir=home, **options)


def refused(home: Path, archive: Published, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        load(home, archive)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert not list(home.glob("cifar10*/*"))
    assert not list((home.parent / "cache").iterdir())


def test_the_published_files_are_as_recorded_by_tfds() -> None:
    sums = Path(pytest.importorskip("tensorflow_datasets").__file__).parent / "url_checksums"
    for spec in published.PUBLISHED.values():
        name = spec.prepared[0]
        tables = (sums / f"{name}.txt", sums.parent / "datasets" / name / "checksums.tsv")
        text = next(path for path in tables if path.exists()).read_text()
        rows = [line.split() for line in text.splitlines()]
        recorded = {row[3]: row[1:3] for row in rows}
        for file in spec.files:
            assert recorded[file.name] == [str(file.size), file.sha256]


def test_archive_is_prepared_then_opened(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(home / FILE_NAME, members())
    (temporary := home.parent / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    calls: list[tuple[str, int, int]] = []
    first = load(home, archive, progress=lambda *call: calls.append(call))
    check(first)
    assert first.name == "cifar10"
    assert calls[0] == ("preparing CIFAR-10", 0, 6 * BATCH)
    assert calls[-1] == ("reading CIFAR-10 test images", BATCH, BATCH)
    assert "tensorflow" not in sys.modules
    assert capfd.readouterr() == ("", "")
    (made,) = home.glob("cifar10_binary/*")
    assert json.loads((made / "dataset_info.json").read_text())["fileFormat"] == "array_record"
    assert not list(temporary.iterdir())

    # The decoded cache needs neither the archive nor what was prepared from it.
    monkeypatch.setattr(published, "contents", None)
    second = load(home, archive)
    check(second)
    assert second.fingerprint == first.fingerprint


def test_progress_may_write_to_the_terminal(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive = write_archive(home / FILE_NAME, members())
    load(home, archive, progress=lambda description, *_: print(description))
    lines = set(capfd.readouterr().out.splitlines())
    assert lines == {
        "preparing CIFAR-10",
        "reading CIFAR-10 train images",
        "reading CIFAR-10 test images",
    }


def test_prepared_directory_is_enough(home: Path) -> None:
    archive = write_archive(home / FILE_NAME, members())
    path = prepare(home, [home / FILE_NAME], archive, silent)
    (home / FILE_NAME).unlink()
    check(load(home, archive))

    # As if tensorflow_datasets had prepared its own builder there.
    info = path / "dataset_info.json"
    info.write_text(info.read_text().replace("cifar10_binary", "cifar10"))
    own = home / "own" / "cifar10" / "3.0.2"
    own.parent.mkdir(parents=True)
    path.rename(own)
    for file in own.glob("cifar10_binary-*"):
        file.rename(own / file.name.replace("cifar10_binary", "cifar10"))
    check(published.contents(home / "own", archive, silent))


def test_recorded_ids_restore_the_authors_order() -> None:
    """tensorflow_datasets' own builder shuffles, but records ids."""
    order = [2, 0, 3, 1]
    source = [
        {"id": b"train_%05d" % i, "image": np.full((32, 32, 3), i, np.uint8), "label": i}
        for i in order
    ]
    images, labels = prepared._arrays(source, "train", silent, CIFAR10, "label")
    assert labels.tolist() == [0, 1, 2, 3]
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_data_directory_follows_tfds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert archives.data_directory(None) == Path.home() / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/elsewhere")
    assert archives.data_directory(None) == Path.home() / "elsewhere"
    assert archives.data_directory("x") == Path("x")


def test_wrong_archives_are_named(home: Path) -> None:
    path = home / FILE_NAME
    archive = write_archive(path, members())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(home, archive, str(path), str(len(whole) - 100), archive.files[0].url)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(home, archive, str(path), "SHA-256")


def test_archives_without_the_right_members_are_refused(home: Path) -> None:
    path = home / FILE_NAME
    refused(home, write_archive(path, members(leave_out="test_batch.bin")), "test_batch.bin")
    name = "cifar-10-batches-bin/data_batch_2.bin"
    refused(home, write_archive(path, {**members(), name: b"short"}), name)
    wrong_label = bytes([10]) + records(1)[2][1:]
    refused(home, write_archive(path, {**members(), name: wrong_label}), "label 10")
    path.write_bytes(path.read_bytes()[:-200])
    refused(home, describe(path), str(path))
    path.write_bytes(b"no tar at all")
    refused(home, describe(path), str(path))


HOSTILE = {
    "absolute path": ("/tmp/absolute.bin", tarfile.REGTYPE, "leaves the archive's folder"),
    "path upwards": ("cifar-10-batches-bin/../../x", tarfile.REGTYPE, "leaves the archive's"),
    "symbolic link": ("a", tarfile.SYMTYPE, "a link"),
    "hard link": ("a", tarfile.LNKTYPE, "a link"),
    "device": ("a", tarfile.CHRTYPE, "neither a file nor a folder"),
    "pipe": ("a", tarfile.FIFOTYPE, "neither a file nor a folder"),
    "sparse": ("a", tarfile.GNUTYPE_SPARSE, "a sparse file"),
    "pickle": ("cifar-10-batches-py/data_batch_1", tarfile.REGTYPE, "pickled"),
    "escapes": ("\x1b[31m\n/../x", tarfile.REGTYPE, r"\\x1b\[31m"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members_are_refused(kind: str, tmp_path: Path) -> None:
    name, kind_of_member, said = HOSTILE[kind]
    member = tarfile.TarInfo(name)
    member.type = kind_of_member
    if kind.endswith("link"):
        member.linkname = "/etc/passwd"
    path = tmp_path / FILE_NAME
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member)
        for name, content in members().items():
            add(tar, name, content)
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == [path]


def test_more_than_cifar10_can_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    name = "cifar-10-batches-bin/test_batch.bin"
    files = members()
    write_archive(path, {**files, "large": bytes(BATCH * 3073 + 1)})
    with pytest.raises(UserError, match="'large' in it is not allowed: a size of"):
        read(path)
    write_archive(path, {**files, **{f"empty{i}": b"" for i in range(40)}})
    with pytest.raises(UserError, match="more than 32 members"):
        read(path)
    with tarfile.open(path, "w:gz") as tar:
        for content in (bytes(BATCH * 3073), files[name]):
            add(tar, name, content)
    with pytest.raises(UserError, match="not one file of"):
        read(path)


def test_bomb_in_a_header_is_not_unpacked(tmp_path: Path) -> None:
    """A header of 64 MiB of zeros has 64 kB in the archive."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 64 << 20
    path = tmp_path / FILE_NAME
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(format=tarfile.USTAR_FORMAT))
        file.write(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(UserError, match="larger than published"):
        read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py"])
def test_pickled_batches_are_refused_with_the_reason(name: str, home: Path) -> None:
    if name.endswith("gz"):
        (home / name).write_bytes(b"x")
    else:
        (home / name).mkdir()
    with pytest.raises(UserError, match=f"--data-dir .*{name}: .* a pickle can run any program"):
        load(home, CIFAR10)
    for folder in (home, home / name):
        with pytest.raises(UserError, match=r"--dataset .* pickle can run any program"):
            dataset.load(str(folder), cache_dir=home.parent / "cache")


def test_without_network_the_message_gives_advice(home: Path) -> None:
    refused(
        home, CIFAR10, str(home), CIFAR10.files[0].url, "--data-dir", "--dataset synthetic", "DIR"
    )


def test_data_dir_that_is_a_file(home: Path) -> None:
    archive = write_archive(home / FILE_NAME, members())
    with pytest.raises(UserError, match="--data-dir"):
        load(home / FILE_NAME, archive)


def test_a_stopped_preparation_leaves_no_files(home: Path) -> None:
    archive = write_archive(home / FILE_NAME, members())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(home, archive, progress=stop)
    assert not list(home.glob("cifar10_binary/*"))
    assert not list((home.parent / "cache").iterdir())
    check(load(home, archive))


def test_another_process_prepares_the_same_meanwhile(home: Path) -> None:
    archive = write_archive(home / FILE_NAME, members())
    others: list[Path] = []

    def meanwhile(*_: object) -> None:
        if not others:
            others.append(prepare(home, [home / FILE_NAME], archive, silent))

    assert prepare(home, [home / FILE_NAME], archive, meanwhile) == others[0]
    assert list(home.glob("cifar10_binary/*")) == others
    check(load(home, archive))


def test_a_damaged_prepared_directory_is_rebuilt_or_named(home: Path) -> None:
    archive = write_archive(home / FILE_NAME, members())
    made = prepare(home, [home / FILE_NAME], archive, silent)
    for file in made.glob("*train.array_record*"):
        file.write_bytes(b"")
    away = (home / FILE_NAME).rename(home.parent / FILE_NAME)
    with pytest.raises(UserError) as caught:
        load(home, archive)
    assert str(made) in str(caught.value)
    away.rename(home / FILE_NAME)
    check(load(home, archive))
    check(read_prepared(made, archive, silent))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a local web server for the folder `served`."""
    (tmp_path / "served").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(archives, "_SCHEMES", ("https", "http"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    handler = partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_download(server: str, tmp_path: Path) -> None:
    path = tmp_path / "served" / FILE_NAME
    write_archive(path, members())
    archive = describe(path, f"{server}/{FILE_NAME}")
    calls: list[tuple[str, int, int]] = []
    check(load(tmp_path / "data", archive, progress=lambda *call: calls.append(call)))
    assert ("downloading CIFAR-10", archive.files[0].size, archive.files[0].size) in calls
    # What was downloaded serves again, also without the server.
    path.unlink()
    found = archives.find_file(tmp_path / "data", archive, archive.files[0])
    assert found is not None
    assert damage(found, archive.files[0]) is None


def test_download_of_something_else_is_refused(server: str, tmp_path: Path) -> None:
    path = tmp_path / "served" / FILE_NAME
    write_archive(path, members())
    archive = describe(path, f"{server}/{FILE_NAME}")
    path.write_bytes(b"a login page")
    with pytest.raises(UserError, match="12 bytes") as caught:
        load(tmp_path / "data", archive)
    assert "\n" not in str(caught.value)
    assert archive.files[0].url in str(caught.value)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_download_that_does_not_end_is_cut_off(server: str, tmp_path: Path) -> None:
    path = tmp_path / "served" / FILE_NAME
    write_archive(path, members())
    archive = describe(path, f"{server}/{FILE_NAME}")
    with path.open("ab") as file:
        file.truncate(64 << 20)
    received: list[int] = []
    with pytest.raises(UserError, match="sends more than"):
        load(tmp_path / "data", archive, progress=lambda _, done, __: received.append(done))
    assert max(received, default=0) <= archive.files[0].size
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_redirect_away_from_https_is_refused(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests takes the first address for https. It leads to the local server."""
    path = tmp_path / "served" / FILE_NAME
    write_archive(path, members())
    monkeypatch.setattr(archives, "_SCHEMES", ("https",))

    def redirect(_self: object, request: Any, **_: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url, response.request = 302, request.url, request
        response.headers["Location"] = f"{server}/{FILE_NAME}"
        response.raw = io.BytesIO()
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirect)
    url = "https://example.invalid/" + FILE_NAME
    assert archives.unreachable(url) == "it leads away from https"
    with pytest.raises(UserError, match="could not be downloaded"):
        download(tmp_path / "data", describe(path, url))
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert archives.unreachable(f"{server}/{FILE_NAME}") == "it leads away from https"


def test_the_recorded_address_is_https_with_a_checksum() -> None:
    assert CIFAR10.files[0].url.startswith("https://")
    assert len(bytes.fromhex(CIFAR10.files[0].sha256)) == 32
    assert archives._SCHEMES == ("https",)


@pytest.mark.parametrize("legacy", [False, True])
def test_prepared_directory_cannot_name_a_module(
    home: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tensorflow_datasets imports the module that features.json names, also from the folder."""
    archive = write_archive(home / FILE_NAME, members())
    made = prepare(home, [home / FILE_NAME], archive, silent)
    marker = home.parent / "executed"
    (home / "hostile.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(str(home))
    features = made / "features.json"
    found = json.loads(features.read_text())
    if legacy:
        label = '{"pythonClassName": "hostile.X"}'
        found = {"type": prepared._FEATURES[0], "proto_cls": "x", "content": label}
    else:
        found["featuresDict"]["features"]["label"]["pythonClassName"] = "hostile.X"
    features.write_text(json.dumps(found))
    refused_for = "text instead" if legacy else "'hostile.X', which is not allowed"
    with pytest.raises(UserError, match=refused_for):
        read_prepared(made, archive, silent)
    assert not marker.exists()


def test_files_that_never_end_are_not_waited_for(home: Path) -> None:
    (home / "cifar10" / "3.0.2").mkdir(parents=True)
    os.mkfifo(home / "cifar10" / "3.0.2" / "dataset_info.json")
    (home / "cifar10" / "3.0.1").mkdir(parents=True)
    (home / "cifar10" / "3.0.1" / "dataset_info.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="CIFAR-10 is not in"):
        load(home, CIFAR10)


def test_data_dir_that_no_file_system_has(tmp_path: Path) -> None:
    for name, said in (("x" * 300, "too long"), ("~nobody-here/x", "home directory is not known")):
        with pytest.raises(UserError, match=f"--data-dir .*{said}"):
            published.load(CIFAR10, tmp_path / "cache", data_dir=name)


def test_a_stopped_download_leaves_no_files(server: str, tmp_path: Path) -> None:
    path = tmp_path / "served" / FILE_NAME
    write_archive(path, members())
    archive = describe(path, f"{server}/{FILE_NAME}")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "data", archive, progress=stop)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_download_that_breaks_off_is_one_line(tmp_path: Path) -> None:
    file = File(f"http://127.0.0.1:1/{FILE_NAME}", 1, "")
    archive = dataclasses.replace(CIFAR10, files=(file,))
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        download(tmp_path, archive)
    assert "\n" not in str(caught.value)


def test_probe(server: str, tmp_path: Path) -> None:
    (tmp_path / "served" / "there").write_text("x")
    assert archives.unreachable(f"{server}/there") is None
    assert archives.unreachable(f"{server}/missing") == "HTTP status 404"
    assert archives.unreachable("http://127.0.0.1:1/x") == "no connection"
