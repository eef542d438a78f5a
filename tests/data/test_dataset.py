"""Loading images by name, and their cache."""

import dataclasses
import hashlib
import json
import os
import pwd
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from cifar_jax.data import dataset
from cifar_jax.data.sources import archives, cache, contents, published, synthetic
from cifar_jax.data.sources.contents import Contents, FolderOptions
from cifar_jax.errors import MachineError, UserError


def small(seed: int = 0) -> Contents:
    rng = np.random.default_rng(seed)
    return Contents(
        train_images=rng.integers(0, 256, (6, 32, 32, 3), np.uint8),
        train_labels=np.array([0, 1, 2, 0, 1, 2], np.int32),
        test_images=rng.integers(0, 256, (3, 32, 32, 3), np.uint8),
        test_labels=np.array([2, 1, 0], np.int32),
        classes=("a", "b", "ç"),
    )


def same(data: dataset.Dataset, expected: Contents) -> bool:
    return data.classes == expected.classes and all(
        np.array_equal(getattr(data, name), getattr(expected, name)) for name in contents.ARRAYS
    )


def never() -> Contents:
    raise AssertionError("must not be built again")


@pytest.fixture
def small_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a small synthetic set."""
    whole = synthetic._contents
    monkeypatch.setattr(synthetic, "_contents", lambda _n, _m, *rest: whole(20, 10, *rest))


# --- names ---------------------------------------------------------------------------------------


def test_the_error_for_an_unknown_name_lists_the_allowed_ones(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("cifar1000", str(tmp_path / "nowhere"), str(tmp_path / "file"), ""):
        with pytest.raises(UserError) as caught:
            dataset.load(name, cache_dir=tmp_path)
        message = str(caught.value)
        assert "\n" not in message
        for part in (name, "auto", "cifar10", "synthetic", "train/<class>/"):
            assert part in message


@pytest.mark.usefixtures("small_synthetic")
def test_synthetic(tmp_path: Path) -> None:
    data = dataset.load("synthetic", cache_dir=tmp_path)
    assert (data.name, data.notice) == ("synthetic", None)
    assert data.fingerprint == dataset.load("synthetic", cache_dir=tmp_path).fingerprint


@pytest.mark.usefixtures("small_synthetic")
def test_auto_falls_back_with_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "unreachable", lambda url: "no answer")
    data = dataset.load("auto", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    assert data.name == "synthetic"
    assert data.notice is not None
    for part in (
        "NOT CIFAR-10",
        "no answer",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "--data-dir",
    ):
        assert part in data.notice


def test_cifar10_never_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "unreachable", lambda url: "no answer")
    with pytest.raises(UserError, match="no answer"):
        dataset.load("cifar10", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


def test_auto_prefers_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "contents", lambda *_: small())
    data = dataset.load("auto", cache_dir=tmp_path)
    assert (data.name, data.notice) == ("cifar10", None)


def test_folder_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label in ("x", "y"):
            (tmp_path / "mine" / split / label).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / "mine" / split / label / "1.png")
    monkeypatch.chdir(tmp_path / "mine")
    assert dataset.load(".", cache_dir=tmp_path / "cache").name == "folder-mine"
    assert dataset.load("../mine//", cache_dir=tmp_path / "cache").name == "folder-mine"


# --- fingerprint ---------------------------------------------------------------------------------


def test_fingerprint_is_the_stated_sha256() -> None:
    data = small()
    digest = hashlib.sha256(b'["a", "b", "\\u00e7"]')
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        array = getattr(data, name)
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    assert contents.fingerprint(data) == digest.hexdigest()


def test_fingerprint_sees_every_part() -> None:
    seen = {contents.fingerprint(small())}
    for name in contents.ARRAYS:
        changed = {field: getattr(small(), field).copy() for field in contents.ARRAYS}
        changed[name].reshape(-1)[-1] ^= 1
        seen.add(contents.fingerprint(Contents(**changed, classes=small().classes)))
    plain = {field: getattr(small(), field) for field in contents.ARRAYS}
    seen.add(contents.fingerprint(Contents(**plain, classes=("a", "b", "d"))))
    assert len(seen) == 6


# --- cache ---------------------------------------------------------------------------------------


def test_cache_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIFAR_JAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert dataset.cache_root() == Path.home() / ".cache" / "cifar_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert dataset.cache_root() == Path("/xdg/cifar_jax")
    monkeypatch.setenv("CIFAR_JAX_CACHE", "~/own")
    assert dataset.cache_root() == Path.home() / "own"


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No home directory, as an unknown user in a container has; the temporary directory."""
    for name in ("HOME", "CIFAR_JAX_CACHE", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_home_the_cache_is_the_users_own_temporary_directory(homeless: Path) -> None:
    root = dataset.cache_root()
    assert root == homeless / f"cifar_jax-{os.getuid()}"
    assert cache.is_homeless(root)
    assert root.stat().st_mode & 0o777 == 0o700
    assert dataset.cache_root() == root
    assert not cache.is_homeless(homeless)


def test_without_a_home_another_users_directory_is_not_the_cache(homeless: Path) -> None:
    """Programs in it are run."""
    root = homeless / f"cifar_jax-{os.getuid()}"
    (homeless / "elsewhere").mkdir(mode=0o700)
    root.symlink_to(homeless / "elsewhere")
    with pytest.raises(UserError, match=r"others can change it.* set CIFAR_JAX_CACHE"):
        dataset.cache_root()
    root.unlink()
    root.mkdir()
    root.chmod(0o770)
    with pytest.raises(UserError, match="others can change it"):
        dataset.cache_root()
    root.rmdir()
    root.write_text("")
    with pytest.raises(UserError, match=r"File exists.* set CIFAR_JAX_CACHE"):
        dataset.cache_root()


def test_without_a_home_auto_blames_no_variable(homeless: Path) -> None:
    with pytest.raises(UserError, match=r"home directory.* --data-dir") as refused:
        dataset.load("cifar10", cache_dir=homeless)
    assert "TFDS_DATA_DIR" not in str(refused.value)


def test_only_entries_of_the_same_folder_are_replaced(tmp_path: Path) -> None:
    """For any characters in the folder's name."""
    for entry in ("[a]*-old", "[a]*-older", "other-old"):
        (tmp_path / entry).mkdir()
    cache.open_or_build(tmp_path, "[a]*-new", "name", small, family="[a]*-")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["[a]*-new", "other-old"]


def test_cached_arrays_are_mapped_and_read_only(tmp_path: Path) -> None:
    first = cache.open_or_build(tmp_path / "deep" / "er", "x", "name", small)
    second = cache.open_or_build(tmp_path / "deep" / "er", "x", "name", never)
    for data in (first, second):
        assert same(data, small())
        assert data.fingerprint == contents.fingerprint(small())
        for name in contents.ARRAYS:
            assert isinstance(getattr(data, name), np.memmap)
            assert not getattr(data, name).flags.writeable


def damage_flip(entry: Path) -> None:
    content = bytearray((entry / "train_images.npy").read_bytes())
    content[-5] ^= 1
    (entry / "train_images.npy").write_bytes(content)


def damage_cut(entry: Path) -> None:
    content = (entry / "test_images.npy").read_bytes()
    (entry / "test_images.npy").write_bytes(content[:-100])


def damage_empty(entry: Path) -> None:
    (entry / "train_labels.npy").write_bytes(b"")


def damage_missing(entry: Path) -> None:
    (entry / "test_labels.npy").unlink()


def damage_record(entry: Path) -> None:
    (entry / "contents.json").write_text("[1]")


def damage_classes(entry: Path) -> None:
    record = json.loads((entry / "contents.json").read_text())
    record["classes"] = ["a", "b", "x"]
    (entry / "contents.json").write_text(json.dumps(record))


def damage_format(entry: Path) -> None:
    record = json.loads((entry / "contents.json").read_text())
    (entry / "contents.json").write_text(json.dumps(record | {"format": 0}))


def damage_swap(entry: Path) -> None:
    """Undamaged files with pickled objects instead of numbers."""
    np.save(entry / "test_labels.npy", np.array([{}, {}, {}]), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        damage_flip,
        damage_cut,
        damage_empty,
        damage_missing,
        damage_record,
        damage_classes,
        damage_format,
        damage_swap,
    ],
)
def test_damaged_entry_is_rebuilt(tmp_path: Path, damage) -> None:
    cache.open_or_build(tmp_path, "x", "name", small)
    damage(tmp_path / "x")
    assert same(cache.open_or_build(tmp_path, "x", "name", small), small())
    assert same(cache.open_or_build(tmp_path, "x", "name", never), small())
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failed_build_leaves_no_entry(tmp_path: Path) -> None:
    def fail() -> Contents:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        cache.open_or_build(tmp_path, "x", "name", fail)
    assert not list(tmp_path.iterdir())


def test_unwritable_cache_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="CIFAR_JAX_CACHE") as caught:
        cache.open_or_build(tmp_path / "file" / "cache", "x", "name", never)
    assert str(tmp_path / "file" / "cache") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has such a device")
def test_a_full_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = cache._save
    monkeypatch.setattr(cache, "_save", lambda _, array: save(Path("/dev/full"), array))
    with pytest.raises(MachineError, match="No space left on device") as caught:
        cache.open_or_build(tmp_path, "x", "name", small)
    assert caught.value.status == 1
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.open_or_build(tmp_path, "x", "name", small)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cache.np, "load", fail)
    with pytest.raises(MemoryError):
        cache.open_or_build(tmp_path, "x", "name", never)


def test_an_entry_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Without notes, equal images and digest."""
    images = np.zeros((2, 32, 32, 3), np.uint8)
    labels = np.array([0, 1], np.int32)
    contents_ = Contents(images, labels, images, labels, ("a", "b"))
    first = cache.open_or_build(tmp_path, "x", "name", lambda: contents_)
    path = tmp_path / "x" / "contents.json"
    record = json.loads(path.read_text())
    kept = {name: record[name] for name in ("format", "classes", "fingerprint")}
    path.write_text(json.dumps(kept))
    again = cache.open_or_build(tmp_path, "x", "name", never)
    assert (again.notes, again.repeats) == ((), first.repeats)
    assert {r.kind for r in again.repeats} == {"test", "labels", "test labels"}


def test_a_damaged_note_is_noticed(tmp_path: Path) -> None:
    noted = dataclasses.replace(small(), notes=("3 images",))
    assert cache.open_or_build(tmp_path, "x", "name", lambda: noted).notes == ("3 images",)
    path = tmp_path / "x" / "contents.json"
    path.write_text(path.read_text().replace("3 images", "2 images"))
    assert cache.open_or_build(tmp_path, "x", "name", lambda: noted).notes == ("3 images",)


def test_only_a_folder_has_another_test_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--test-split val: only an image folder"):
        dataset.load("cifar10", cache_dir=tmp_path, options=FolderOptions(test_split="val"))


def test_older_entries_of_the_family_go(tmp_path: Path) -> None:
    cache.open_or_build(tmp_path, "a-1", "name", small, family="a-")
    cache.open_or_build(tmp_path, "b-1", "name", small, family="b-")
    cache.open_or_build(tmp_path, "a-2", "name", lambda: small(1), family="a-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2", "b-1"]


def test_two_that_build_at_once_both_get_it(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    found: list[dataset.Dataset] = []

    def build() -> Contents:
        together.wait()
        return small()

    def work() -> None:
        found.append(cache.open_or_build(tmp_path, "x", "name", build))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(same(data, small()) for data in found)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
