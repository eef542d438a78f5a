"""Tiny datasets in each official format, in CSV tables, and prepared by tensorflow-datasets."""

import dataclasses
import gzip
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.io
import test_sources_published as small
from PIL import Image

from cifar_jax.core.train import epoch_order
from cifar_jax.data import dataset
from cifar_jax.data.sources import archives, prepared, published
from cifar_jax.data.sources.contents import Dataset, FolderOptions, silent
from cifar_jax.data.sources.published import CIFAR100, CIFAR100_COARSE, FASHION_MNIST, MNIST, SVHN
from cifar_jax.data.sources.spec import File, Published
from cifar_jax.data.streaming import stream_batches
from cifar_jax.errors import UserError

COUNTS = (7, 5)


def drawn(spec: Published, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split. Every first label is 0, every second the last class."""
    rng = np.random.default_rng(split)
    images = rng.integers(0, 256, (COUNTS[split], *spec.shape), np.uint8)
    labels = rng.integers(0, len(spec.classes), COUNTS[split]).astype(np.int32)
    labels[:2] = 0, len(spec.classes) - 1
    return images, labels


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    for length in array.shape:
        header += length.to_bytes(4, "big")
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def write_idx(spec: Published, folder: Path) -> None:
    for split in (0, 1):
        images, labels = drawn(spec, split)
        (folder / spec.files[2 * split].name).write_bytes(idx(images[..., 0]))
        (folder / spec.files[2 * split + 1].name).write_bytes(idx(labels))


def write_svhn(spec: Published, folder: Path) -> None:
    for split in (0, 1):
        images, labels = drawn(spec, split)
        digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        mat = {"X": images.transpose(1, 2, 3, 0), "y": digits}
        scipy.io.savemat(folder / spec.files[split].name, mat, do_compression=True)


def write_cifar100(spec: Published, folder: Path) -> None:
    files = {"cifar-100-binary/fine_label_names.txt": b"x"}
    for split, name in enumerate(("train", "test")):
        images, labels = drawn(spec, split)
        other = (labels + 1) % 20
        pair = (labels, other) if spec is CIFAR100_COARSE else (other, labels)
        content = b""
        for coarse, fine, image in zip(*pair, images, strict=True):
            content += bytes([coarse, fine]) + image.transpose(2, 0, 1).tobytes()
        files[f"cifar-100-binary/{name}.bin"] = content
    small.write_archive(folder / spec.files[0].name, files)


def describe(spec: Published, folder: Path) -> Published:
    """The dataset, with counts and checksums of the files in a folder."""
    files = []
    for file in spec.files:
        content = (folder / file.name).read_bytes()
        files.append(File(file.url, len(content), hashlib.sha256(content).hexdigest()))
    return dataclasses.replace(spec, files=tuple(files), counts=COUNTS)


WRITERS: dict[str, tuple[Published, Callable[[Published, Path], None]]] = {
    "cifar100": (CIFAR100, write_cifar100),
    "cifar100_coarse": (CIFAR100_COARSE, write_cifar100),
    "svhn": (SVHN, write_svhn),
    "mnist": (MNIST, write_idx),
    "fashion_mnist": (FASHION_MNIST, write_idx),
}


def made(name: str, folder: Path) -> Published:
    spec, write = WRITERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    write(spec, folder)
    return describe(spec, folder)


def check(data: Dataset, spec: Published) -> None:
    for split, name in enumerate(("train", "test")):
        images, labels = drawn(spec, split)
        np.testing.assert_array_equal(getattr(data, f"{name}_images"), images)
        np.testing.assert_array_equal(getattr(data, f"{name}_labels"), labels)
    assert data.classes == spec.classes
    assert data.name == spec.name


@pytest.mark.parametrize("name", WRITERS)
def test_official_files_are_read(name: str, home: Path) -> None:
    spec = made(name, home)
    check(published.load(spec, home.parent / "cache", data_dir=home), spec)
    assert (home / spec.own / "1.0.0" / "dataset_info.json").exists()
    # What was prepared serves without the files.
    for file in spec.files:
        (home / file.name).unlink()
    check(published.load(spec, home.parent / "other", data_dir=home), spec)


def test_files_of_the_same_name_do_not_meet(home: Path) -> None:
    """MNIST and Fashion-MNIST name their files alike. Other libraries use these folders."""
    digits, clothes = made("mnist", home / "MNIST/raw"), made("fashion_mnist", home)
    assert archives.obtain(home, digits, silent)[0].parent == home / "MNIST/raw"
    assert archives.obtain(home, clothes, silent)[0].parent == home


@pytest.mark.parametrize("name", WRITERS)
def test_missing_and_damaged_files_are_one_line(name: str, home: Path) -> None:
    spec = made(name, home)
    last = home / spec.files[-1].name
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{last.name}: not .* or damaged .*SHA-256") as damaged:
        archives.obtain(home, spec, silent)
    last.unlink()
    with pytest.raises(UserError, match=r"is not in .*no connection.*--data-dir") as missing:
        archives.obtain(home, spec, silent)
    for error in (damaged, missing):
        assert "\n" not in str(error.value)
        assert spec.files[-1].url in str(error.value)
    assert spec.files[-1].sha256[:12] in str(missing.value)


@pytest.mark.parametrize("name", WRITERS)
def test_other_contents_are_refused(name: str, home: Path) -> None:
    """Files with a right checksum and wrong contents, as a hostile table of checksums allows."""
    spec = made(name, home)
    for counts in ((8, 5), (7, 4)):
        wrong = dataclasses.replace(spec, counts=counts)
        with pytest.raises(UserError, match=str(home)):
            wrong.read(wrong, [home / file.name for file in spec.files])
    for file in spec.files:
        (home / file.name).write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read as a"):
        spec.read(spec, [home / file.name for file in spec.files])


def test_a_grey_dataset_is_normalised_by_its_own_statistics() -> None:
    from cifar_jax.config.normalisation import statistics

    images = np.random.default_rng(0).integers(0, 256, (30, 9, 8, 2), np.uint8)
    mean, std = statistics(images)
    for text, found in (
        (mean, (images / 255).mean((0, 1, 2))),
        (std, (images / 255).std((0, 1, 2))),
    ):
        np.testing.assert_allclose([float(x) for x in text.split(",")], found, atol=5.1e-5)


# --- CSV ----------------------------------------------------------------------------------------


def write_table(folder: Path, rows: Sequence[tuple[str, str, str]], size: int = 32) -> Path:
    folder.mkdir(exist_ok=True)
    for number, (file, _, _) in enumerate(rows):
        image = np.full((size, size, 3), number, np.uint8)
        image[0, 0] = 255
        Image.fromarray(image).save(folder / file)
    lines = [
        "label,split,file,other",
        *(f"{label},{split},{file},x" for file, label, split in rows),
    ]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


ROWS = [
    ("a.png", "10", "train"),
    ("b.png", "2", "val"),
    ("c.png", "2", "train"),
    ("d.png", "10", "test"),
    ("e.png", "10", "train"),
]


def test_a_table_names_files_labels_and_splits(tmp_path: Path) -> None:
    path = write_table(tmp_path / "images", ROWS, size=28)
    options = FolderOptions(size=28)
    data = dataset.load(str(path), cache_dir=tmp_path / "cache", options=options)
    assert (data.name, data.classes, data.n_val) == ("table-labels", ("2", "10"), 1)
    assert data.train_labels.tolist() == [1, 0, 1, 0]
    assert data.train_images[:, 1, 1, 0].tolist() == [0, 2, 4, 1]
    assert data.test_labels.tolist() == [1]
    assert data.test_images.shape == (1, 28, 28, 3)
    again = dataset.load(str(path), cache_dir=tmp_path / "cache", options=options)
    assert (again.fingerprint, again.n_val) == (data.fingerprint, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.png", "x", "train"), ("b.png", "y", "train")], "no row has the split test"),
        ([("a.png", "x", "train"), ("b.png", "x", "test")], "1 class; allowed: 2 to 1000"),
        ([*ROWS, ("f.png", "new", "test")], "label 'new' of split test is not in train"),
        ([*ROWS, ("f.png", "2", "dev")], "line 7: split 'dev'; allowed: train, val, test"),
        ([*ROWS, ROWS[0]], "the file 'a.png' has two rows"),
    ],
)
def test_wrong_tables_are_named(
    rows: list[tuple[str, str, str]], message: str, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "images", rows)
    with pytest.raises(UserError, match=message) as caught:
        dataset.load(str(path), cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_table_stays_in_its_folder(tmp_path: Path) -> None:
    path = write_table(tmp_path / "images", ROWS)
    path.write_text(path.read_text().replace("a.png", "../a.png"))
    with pytest.raises(UserError, match="allowed: a path in the table's folder"):
        dataset.load(str(path), cache_dir=tmp_path / "cache")
    path.write_text("label,split\n")
    with pytest.raises(UserError, match="has no column file; needed: file, label, split"):
        dataset.load(str(path), cache_dir=tmp_path / "cache")


# --- prepared datasets --------------------------------------------------------------------------


@pytest.fixture
def records(home: Path) -> Path:
    """A grey dataset of 28x28, prepared as array_record."""
    spec = made("mnist", home)
    return prepared.prepare(home, [home / file.name for file in spec.files], spec, silent)


def test_any_prepared_dataset_is_read(records: Path, tmp_path: Path) -> None:
    data = dataset.load(str(records), cache_dir=tmp_path / "cache")
    assert data.name == "tfds-mnist_binary"
    check(dataclasses.replace(data, name="mnist"), MNIST)
    resized = dataset.load(
        str(records), cache_dir=tmp_path / "cache", options=FolderOptions(resize=True, size=16)
    )
    assert resized.train_images.shape == (7, 16, 16, 1)
    options = FolderOptions(val_split="test")
    with pytest.raises(UserError, match="must be two splits besides train"):
        dataset.load(str(records), cache_dir=tmp_path / "cache", options=options)
    with pytest.raises(UserError, match="has no split dev, but test, train"):
        dataset.load(
            str(records), cache_dir=tmp_path / "cache", options=FolderOptions(test_split="dev")
        )


def test_streamed_records_are_the_images_of_the_arrays(records: Path, tmp_path: Path) -> None:
    """Batches, fingerprint and the batches after a restart are the same bits."""
    whole = dataset.load(str(records), cache_dir=tmp_path / "cache")
    options = FolderOptions(stream=True)
    for _ in ("built", "cached"):
        streamed = dataset.load(str(records), cache_dir=tmp_path / "cache", options=options)
        assert not isinstance(streamed.train_images, np.ndarray)
        assert streamed.fingerprint == whole.fingerprint
        order = np.asarray(epoch_order(jax.random.key(3), 1, 7))
        for start in (0, 2, 4):  # 4: a restart after two batches
            rows = order[start:]
            batches = stream_batches(streamed.train_images, streamed.train_labels, rows, 2)
            expected = stream_batches(whole.train_images, whole.train_labels, rows, 2)
            for (x, y), (images, labels) in zip(batches, expected, strict=True):
                np.testing.assert_array_equal(x, images)
                np.testing.assert_array_equal(y, labels)
    assert not list((tmp_path / "cache").glob("*/train_images.npy"))[1:]


def test_a_damaged_prepared_dataset_is_one_line(records: Path, tmp_path: Path) -> None:
    for file in records.glob("*train.array_record*"):
        file.write_bytes(b"")
    for stream in (False, True):
        with pytest.raises(UserError, match=f"{records}: cannot be read") as caught:
            dataset.load(
                str(records), cache_dir=tmp_path / "c", options=FolderOptions(stream=stream)
            )
        assert "\n" not in str(caught.value)
    (records / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    with pytest.raises(UserError, match="is not prepared as array_record"):
        dataset.load(str(records), cache_dir=tmp_path / "c")
