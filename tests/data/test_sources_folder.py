"""The image folder: what is read, in which order, and how what cannot be read is refused."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_jax.data.sources import folder
from cifar_jax.errors import UserError


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
    return folder.load(path, path.parent / "cache", **options)


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


@pytest.mark.parametrize("extension", folder.EXTENSIONS)
def test_every_format_is_read(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension.upper()}"
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(path)
    np.testing.assert_allclose(folder.decode(str(path), resize=False), 200, atol=2)


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    grey, alpha = pixels(1, (32, 32)), pixels(2, (32, 32, 4))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 17).save(tmp_path / "wide.png")
    Image.fromarray(grey > 127).save(tmp_path / "bits.png")
    palette = Image.fromarray(pixels(3) // 64 * 64).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    Image.fromarray(np.full((32, 32, 4), 0, np.uint8), "CMYK").save(tmp_path / "cmyk.jpg")

    def decoded(name: str) -> np.ndarray:
        return folder.decode(str(tmp_path / name), resize=False)

    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decoded("grey.png"), as_rgb)
    np.testing.assert_array_equal(decoded("wide.png"), as_rgb)
    np.testing.assert_array_equal(decoded("bits.png"), np.where(as_rgb > 127, 255, 0))
    np.testing.assert_array_equal(decoded("alpha.png"), alpha[..., :3])
    np.testing.assert_array_equal(decoded("palette.png"), np.asarray(palette.convert("RGB")))
    np.testing.assert_allclose(decoded("cmyk.jpg"), 255, atol=2)


def test_orientation_tags_are_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(pixels(0))
    image.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(folder.decode(str(tmp_path / "x.png"), False), pixels(0))


def test_hidden_and_desktop_files_are_ignored(images: Path) -> None:
    before = load(images).fingerprint
    for name in (".DS_Store", "train/.hidden/1.png", "train/cat/.1.png", "test/dog/Thumbs.db"):
        path = images / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    (images / "train" / "labels.csv").write_text("a,b")
    assert load(images).fingerprint == before


def test_resize_takes_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    Image.fromarray(wide).save(tmp_path / "x.png")
    small = folder.decode(str(tmp_path / "x.png"), True)
    # The filter rings within a few pixels of the square's edge.
    np.testing.assert_array_equal(small[:, 4:28], 255)
    assert small.min() > 200


def refused(images: Path, *parts: str, **options: object) -> None:
    """Loading fails in one line that holds all the parts, and leaves no cache entry."""
    with pytest.raises(UserError) as caught:
        load(images, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    cache = images.parent / "cache"
    assert not cache.exists() or not list(cache.iterdir())


def test_another_size_names_the_first_such_file(images: Path) -> None:
    for name in ("dog/1.png", "cat/10.png", "cat/3.png"):
        Image.new("RGB", (40, 30)).save(images / "train" / name)
    refused(images, str(images / "train/cat/3.png"), "40x30", "--resize")
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


def test_other_file_types_are_named(images: Path) -> None:
    (images / "train" / "cat" / "notes.txt").write_text("x")
    refused(images, "notes.txt", "png, jpg")


def test_layout_errors_name_the_place(images: Path) -> None:
    save(images / "train" / "loose.png")
    refused(images, str(images / "train" / "loose.png"))
    (images / "train" / "loose.png").unlink()

    (images / "train" / "eel").mkdir()
    refused(images, str(images / "train" / "eel"), "no images")
    save(images / "train" / "eel" / "1.png")
    refused(images, str(images / "train" / "eel"), str(images / "test"))
    (images / "train" / "eel").rename(images / "test" / "eel")
    refused(images, str(images / "test" / "eel"), str(images / "train"))

    (images / "test").rename(images / "validation")
    refused(images, str(images / "test"), "train/<class>/*")


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "data" / split / "cat" / "1.png")
    refused(tmp_path / "data", "at least 2")


def test_second_opening_decodes_nothing(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(images)
    monkeypatch.setattr(folder, "decode", None)
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
    assert calls == [("decoding train images", 4, 4), ("decoding test images", 2, 2)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cats & dogs", "folder-cats-dogs"), ("x/", "folder-x"), ("..", None), ("a.b_c", None)],
)
def test_name_is_safe_in_a_file_name(tmp_path: Path, name: str, expected: str | None) -> None:
    expected = expected or f"folder-{(tmp_path / name).resolve().name}"
    (tmp_path / name).mkdir(exist_ok=True)
    assert folder.dataset_name(tmp_path / name) == expected


def real_files(target: Path) -> Path:
    """A few hundred real images, from CIFAR_JAX_TEST_FOLDER or the archive beside the checkout."""
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
