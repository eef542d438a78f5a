"""The image folder: files, their order, and errors."""

import io
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_jax.config.settings import Config, DataConfig
from cifar_jax.data.sources import decode, folder
from cifar_jax.data.sources.contents import FolderOptions
from cifar_jax.errors import MachineError, UserError
from cifar_jax.runner.prepare import open_dataset


def pixels(seed: int, shape: tuple[int, ...] = (32, 32, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, seed: int = 0) -> np.ndarray:
    """Write random pixels without loss and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels(seed)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes, two images each in train, one in test."""
    root = tmp_path / "My photos"
    seed = 0
    for split, names in (("train", ("1.png", "2.png")), ("test", ("1.png",))):
        for label in ("cat", "dog"):
            for name in names:
                save(root / split / label / name, seed)
                seed += 1
    return root


def load(path: Path, **options: object) -> folder.Dataset:
    rest = {name: options.pop(name) for name in ("classes", "progress") if name in options}
    return folder.load(path, path.parent / "cache", options=FolderOptions(**options), **rest)


def test_pixels_labels_and_classes(images: Path) -> None:
    data = load(images)
    assert data.name == "folder-My-photos"
    assert data.classes == ("cat", "dog")
    np.testing.assert_array_equal(data.train_images, [pixels(i) for i in range(4)])
    np.testing.assert_array_equal(data.test_images, [pixels(4), pixels(5)])
    assert data.train_labels.tolist() == [0, 0, 1, 1]
    assert data.test_labels.tolist() == [0, 1]
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int32


def test_a_folder_named_like_a_home_directory(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.rename(images.parent / "~nobody-here")
    monkeypatch.chdir(images.parent)
    config = Config(data=DataConfig(dataset="~nobody-here"))
    monkeypatch.setenv("CIFAR_JAX_CACHE", str(images.parent / "cache"))
    found, dataset = open_dataset(config)
    assert found.data.dataset == str(images.parent / "~nobody-here")
    assert "nobody-here" in dataset.name


def test_order_is_natural_and_classes_are_sorted_by_name(tmp_path: Path) -> None:
    names = ["img10.png", "img9.png", "img1.png", "b2.PNG", "2.png", "10.png"]
    for i, name in enumerate(names):
        save(tmp_path / "train" / "b" / name, i)
    for split, label in (("train", "B"), ("test", "B"), ("test", "b")):
        save(tmp_path / split / label / "0.png", 99)
    data = load(tmp_path)
    assert data.classes == ("B", "b")
    order = [4, 5, 3, 2, 1, 0]
    np.testing.assert_array_equal(data.train_images[1:], [pixels(i) for i in order])


ODDITIES = (
    "train/__MACOSX/._0.png",
    "train/cat/@eaDir/x",
    "train/.ipynb_checkpoints/1.png",
    "test/cat/._1.png",
    "test/dog/.DS_Store",
    "test/dog/Thumbs.db",
    "train/cat/README",
    "train/cat/labels.csv",
    "train/dog/all.zip",
    "train/notes.txt",
)


def test_files_other_than_images_are_skipped_and_noted(images: Path) -> None:
    before = load(images)
    for name in (".DS_Store", *ODDITIES):
        path = images / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    found = load(images)
    assert found.fingerprint == before.fingerprint
    said = "skipped 10 entries that are not images; the first: train/.ipynb_checkpoints"
    assert (before.notes, found.notes) == ((), (said,))
    assert load(images).notes == (said,)


@pytest.mark.parametrize("name", ["x.heic", "x.avif", "x.npy"])
def test_images_of_other_kinds_are_refused(images: Path, name: str) -> None:
    (images / "train" / "cat" / name).write_bytes(b"something")
    refused(images, f"train/cat/{name}", "png, jpg")


def refused(images: Path, *parts: str, **options: object) -> str:
    """Check that loading fails with all parts in one line, and adds no cache entry."""
    cache = images.parent / "cache"
    before = set(cache.iterdir()) if cache.exists() else set()
    with pytest.raises(UserError) as caught:
        load(images, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert (set(cache.iterdir()) if cache.exists() else set()) == before
    return message


def test_another_size_names_such_files(images: Path) -> None:
    for name in ("dog/1.png", "cat/10.png", "cat/3.png"):
        Image.new("RGB", (40, 30)).save(images / "train" / name)
    names = "train/cat/3.png, train/cat/10.png, train/dog/1.png"
    refused(images, f"{images}: 3 entries cannot be used: {names}: 40x30", "--resize")
    assert load(images, resize=True).train_images.shape == (6, 32, 32, 3)


def test_damaged_files_are_named(images: Path) -> None:
    path = images / "test" / "dog" / "1.png"
    whole = path.read_bytes()
    jpeg = io.BytesIO()
    Image.fromarray(pixels(0)).save(jpeg, "JPEG")
    bomb = io.BytesIO()
    Image.new("1", (15000, 13000)).save(bomb, "PNG")
    header = b"P6\n60000 60000\n255\n"
    cases = {
        "cut": whole[: len(whole) // 2],
        "jpeg": jpeg.getvalue()[:-300],
        "empty": b"",
        "text": b"not an image",
        "header": whole[:20],
        "bomb": bomb.getvalue(),
        "larger bomb": header,
    }
    for content in cases.values():
        path.write_bytes(content)
        refused(images, str(path), resize=True)
        refused(images, str(path))


def test_files_that_are_no_files_are_named(images: Path) -> None:
    link = images / "train" / "cat" / "3.png"
    link.symlink_to(images / "nowhere.png")
    refused(images, str(link))
    link.unlink()
    os.mkfifo(link)
    refused(images, str(link))
    link.unlink()
    (images / "train" / "cat" / "more").mkdir()
    refused(images, str(images / "train" / "cat" / "more"))


def test_up_to_twenty_damaged_files_are_named(images: Path) -> None:
    for i in range(30):
        (images / "train" / "cat" / f"bad{i}.png").write_bytes(b"<html>404 Not Found</html>")
    (images / "test" / "dog" / "1.png").write_bytes(b"")
    names = [f"train/cat/bad{i}.png" for i in range(20)]
    refused(images, f"{images}: 31 entries cannot be used: {', '.join(names)}: cannot", "11 more")


def test_names_that_are_too_long_for_a_line_are_counted(images: Path) -> None:
    for i in range(20):
        (images / "train" / "cat" / f"{'x' * 150}{i}.png").write_bytes(b"")
    message = refused(images, f"{images}: 20 entries cannot be used: train/cat/xxx")
    named, left = re.findall(r"x\d+\.png", message), re.search(r"; and (\d+) more$", message)
    assert left is not None
    assert len(named) + int(left[1]) == 20


def test_too_little_memory_is_the_machines_fault(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (MemoryError(), OSError("out of memory error when reading image file")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(decode.Image, "open", fail)
            with pytest.raises(
                MachineError, match=r"1\.png: not enough memory to decode"
            ) as caught:
                load(images)
            assert caught.value.status == 1


def test_layout_errors_name_the_path(images: Path) -> None:
    save(images / "train" / "loose.png")
    refused(images, str(images / "train" / "loose.png"))
    (images / "train" / "loose.png").unlink()

    for split in ("train", "test"):
        (images / split / "eel").mkdir()
    refused(images, f"{images}: 2 entries", "train/eel, test/eel: this class has no images")
    save(images / "train" / "eel" / "1.png")
    refused(images, str(images / "test" / "eel"), "no images")
    (images / "test" / "eel").rmdir()
    refused(images, str(images / "train" / "eel"), "missing in test/")
    (images / "train" / "eel").rename(images / "test" / "eel")
    refused(images, str(images / "test" / "eel"), "missing in train/")

    (images / "test").rename(images / "elsewhere")
    refused(images, str(images / "test"), "train/<class>/*")


def test_a_split_of_another_name_is_used_when_asked_for(images: Path) -> None:
    before = load(images)
    (images / "test").rename(images / "val")
    refused(images, str(images / "test"), "--test-split val tests on val/")
    found = load(images, test_split="val")
    assert (found.fingerprint, found.notes) == (before.fingerprint, ())
    for name in ("train", "../x", ".."):
        refused(images, f"--test-split {name}", test_split=name)
    refused(images, f"{images / 'dev'}: no such folder", test_split="dev")


def test_an_unused_split_is_noted(images: Path) -> None:
    save(images / "val" / "cat" / "1.png")
    said = "not used: val/; validation images come from train/, test images from test/"
    assert load(images).notes == (said,)


def test_unselected_classes_may_have_errors(images: Path) -> None:
    whole = load(images)
    save(images / "train" / "fox" / "1.png")
    for split in ("train", "test"):
        (images / split / "eel").mkdir()
        (images / split / "gnu").mkdir()
        (images / split / "gnu" / "1.png").write_bytes(b"")
    refused(images, "train/fox: this class is missing", "train/eel, test/eel: this class has no")
    refused(images, "train/fox: this class is missing", classes="cat,fox")
    found = load(images, classes="dog,cat")
    assert (found.name, found.classes) == ("folder-My-photos-2of5", ("dog", "cat"))
    np.testing.assert_array_equal(found.train_images, whole.train_images)
    assert found.train_labels.tolist() == [1, 1, 0, 0]


def test_classes_in_the_folders_order_are_the_whole_folder(images: Path) -> None:
    assert load(images, classes="cat,dog").fingerprint == load(images).fingerprint


def test_equal_images_are_named_by_their_files(images: Path) -> None:
    save(images / "test" / "cat" / "same.png", 0)
    found = load(images)
    (repeats,) = found.repeats
    assert (repeats.count, repeats.first) == (1, ("test/cat/same.png", "train/cat/1.png"))
    assert load(images).repeats == found.repeats
    assert load(images, classes="dog,cat").repeats == found.repeats


def test_notes_on_decoding_are_cached(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in (3, 4):
        Image.new("RGB", (32, 32), "red").save(images / "train" / "cat" / f"{i}.png")
    said = ("2 images of one constant colour; the first: train/cat/3.png",)
    assert load(images).notes == said
    monkeypatch.setattr(decode, "decode", None)
    assert load(images).notes == said


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "data" / split / "cat" / "1.png")
    refused(tmp_path / "data", "at least 2")


def test_second_opening_decodes_nothing(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(images)
    monkeypatch.setattr(decode, "decode", None)
    second = load(images)
    assert second.fingerprint == first.fingerprint
    assert isinstance(second.train_images, np.memmap)
    np.testing.assert_array_equal(second.train_images, first.train_images)


def test_every_change_is_noticed(images: Path) -> None:
    seen = {load(images).fingerprint}

    def changed() -> bool:
        before = len(seen)
        seen.add(load(images).fingerprint)
        return len(seen) > before

    one = images / "train" / "cat" / "1.png"
    save(images / "train" / "cat" / "3.png", 50)
    assert changed()
    one.rename(one.with_name("9.png"))
    assert changed()
    (images / "train" / "dog" / "1.png").unlink()
    assert changed()

    # The same size and the same time of modification, but other pixels.
    bitmap = images / "train" / "dog" / "5.bmp"
    save(bitmap, 60)
    assert changed()
    status = bitmap.stat()
    save(bitmap, 61)
    os.utime(bitmap, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bitmap.stat().st_size == status.st_size
    assert changed()


def test_only_the_newest_state_of_a_folder_is_kept(images: Path) -> None:
    load(images)
    save(images / "train" / "cat" / "3.png", 50)
    load(images)
    assert len(list((images.parent / "cache").iterdir())) == 1


def test_progress_ends_complete(images: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    load(images, progress=lambda *call: calls.append(call))
    assert calls == [("decoding images", 6, 6)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cats & dogs", "folder-cats-dogs"), ("x/", "folder-x"), ("..", None), ("a.b_c", None)],
)
def test_name_is_safe_in_a_file_name(tmp_path: Path, name: str, expected: str | None) -> None:
    expected = expected or f"folder-{(tmp_path / name).resolve().name}"
    (tmp_path / name).mkdir(exist_ok=True)
    assert folder.dataset_name(tmp_path / name) == expected


def real_files(target: Path) -> Path:
    """A few hundred real images, from CIFAR_JAX_TEST_FOLDER or an archive next to the checkout."""
    if given := os.environ.get("CIFAR_JAX_TEST_FOLDER"):
        for split, per_class in (("train", 20), ("test", 5)):
            for label in sorted((Path(given) / split).iterdir()):
                (target / split / label.name).mkdir(parents=True)
                for file in sorted(label.iterdir())[:per_class]:
                    (target / split / label.name / file.name).symlink_to(file.resolve())
        return target
    archive = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.xz"
    if not archive.exists():
        pytest.skip("no real images: set CIFAR_JAX_TEST_FOLDER to an image folder")
    kept: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            place = os.path.dirname(member.name)
            if member.isreg() and kept.get(place, 0) < 20:
                kept[place] = kept.get(place, 0) + 1
                tar.extract(member, target, filter="data")
    (root,) = [p.parent for p in target.rglob("train") if p.is_dir()]
    return root


def test_real_images(tmp_path: Path) -> None:
    data = folder.load(real_files(tmp_path / "real"), tmp_path / "cache")
    assert len(data.classes) == 10
    assert set(data.train_labels.tolist()) == set(range(10))
    for image, label in list(zip(data.train_images, data.train_labels, strict=True))[::37]:
        assert image.std() > 1
        assert 0 <= label < 10
