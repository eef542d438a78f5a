"""The parts `corruptions` and `published_sets`: accuracies, flags, wrong files."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_jax.analysis import published_sets
from cifar_jax.analysis.common_corruptions.table import KINDS, NAMES, SEVERITIES, corrupt
from cifar_jax.analysis.corruptions import Corruptions, chosen, numbers
from cifar_jax.analysis.published_sets import FILES, read_corrupted, read_new
from cifar_jax.config.settings import DataConfig
from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.errors import UserError
from cifar_jax.main import main
from cifar_jax.runner.prepare import load_dataset
from cifar_jax.study.collect import read_ended

pytestmark = pytest.mark.usefixtures("cache")


def record_of(directory: Path, part: str) -> dict:
    found = json.loads((directory / "analysis.json").read_text())
    return found["parts"][part]


def test_numbers_are_means_over_kinds_and_severities() -> None:
    table = np.random.default_rng(0).uniform(size=(15, 5))
    record = Corruptions(20, 0.9, tuple(map(tuple, table.tolist())), "")
    found = {number.quantity.key: number.value for number in numbers(record)}
    assert found["mean_corruption"] == pytest.approx(table.mean())
    assert found["lost"] == pytest.approx(0.9 - table.mean())
    assert found["jpeg"] == pytest.approx(table[14].mean())


def test_the_images_are_the_first_of_a_fixed_permutation() -> None:
    assert set(chosen(50, 100)) == set(range(50))
    np.testing.assert_array_equal(chosen(50, 7), chosen(50, 100)[:7])


def test_accuracies_are_those_of_the_corrupted_images(analysed) -> None:
    """Against the saved predictions without corruption, and the counts of the test images."""
    part = record_of(analysed.directory, "corruptions")
    assert part["options"]["images"] == 1000
    assert len({run["record"]["sha256"] for run in part["runs"]}) == 1
    for run in part["runs"]:
        record = run["record"]
        assert record["images"] == 15
        ended = read_ended(analysed.directory / run["arm"] / f"seed{run['seed']}")
        assert record["clean"] == pytest.approx(ended.tested.test_accuracy)
        counts = 15 * np.array(record["accuracy"])
        assert counts.shape == (15, 5)
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    # The digest is of every set, in order.
    images = load_dataset(DataConfig(dataset=str(analysed.images))).test_images
    indices, digest = chosen(15, 1000), hashlib.sha256()
    for kind in KINDS:
        for severity in SEVERITIES:
            digest.update(corrupt(images[indices], kind, severity, indices).tobytes())
    assert part["runs"][0]["record"]["sha256"] == digest.hexdigest()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--corruption-images", "0"), "--corruption-images: '0' is not a whole number"),
        (("--cifar10-1", "nowhere"), "--cifar10-1: folder-halves is not CIFAR-10"),
        (("--only", "published_sets"), "needs --cifar10-c DIR or --cifar10-1 DIR"),
    ],
)
def test_wrong_flags_are_one_line(trained, capsys, flags, said) -> None:
    assert trained.analyse(*flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (trained.directory / "analysis.json").exists()


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """Files of CIFAR-10-C with 12 images at each severity, and of CIFAR-10.1 with 20."""
    monkeypatch.setattr(published_sets, "EACH", 12)
    rng = np.random.default_rng(0)
    directory = tmp_path / "published"
    directory.mkdir()
    for name in NAMES:
        np.save(directory / FILES[name], rng.integers(0, 256, (60, 32, 32, 3), np.uint8))
    np.save(directory / "labels.npy", np.tile(np.arange(12, dtype=np.uint8) % 10, 5))
    np.save(directory / "cifar10.1_v6_data.npy", rng.integers(0, 256, (20, 32, 32, 3), np.uint8))
    np.save(directory / "cifar10.1_v6_labels.npy", np.arange(20, dtype=np.int32) % 10)
    return directory


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("fog.npy", None, "cannot be read (No such file or directory)"),
        ("fog.npy", b"text", "is not a NumPy file"),
        ("fog.npy", np.zeros((60, 32, 32), np.uint8), "is uint8 (60, 32, 32); images are uint8"),
        ("fog.npy", np.zeros((60, 32, 32, 3)), "is float64 (60, 32, 32, 3); images are uint8"),
        ("fog.npy", np.zeros((9, 32, 32, 3), np.uint8), "must have 60 images"),
        ("fog.npy", np.array([{}]), "is not a NumPy file ("),
        ("labels.npy", np.full(60, 10), "must have 60 labels from 0 to 9"),
        ("labels.npy", np.arange(60) % 10, "must have the same labels at each severity"),
        ("cifar10.1_v6_labels.npy", np.zeros(9, int), "must have 20 labels from 0 to 9"),
        ("cifar10.1_v6_labels.npy", np.zeros(20), "labels are integers of shape (N,)"),
    ],
)
def test_wrong_files_are_one_line(published, file, content, said) -> None:
    path = published / file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError) as caught:
        read_corrupted(published), read_new(published)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_published_sets_of_a_run_on_cifar10(
    published, tmp_path, blank_figures, monkeypatch, capsys
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for name in CIFAR10.classes:
            directory = tmp_path / "images" / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(directory / f"{i}.png")
    file = tmp_path / "tiny.py"
    file.write_text(
        "import cifar_jax as cj\n"
        "def tiny(hidden):\n"
        "    model = cj.CNN(10, 'none', widths=(), hidden=hidden)\n"
        "    return cj.Experiment(model, batch_size=16, epochs=1)\n"
        "arms = {'tiny': tiny(2)}\n"
    )
    run = tmp_path / "run"
    data = ["--dataset", str(tmp_path / "images"), "--folder-is-cifar10"]
    flags = ["--val-examples", "8", "--workdir", str(run)]
    assert main(["train", str(file), *data, *flags]) == 0
    both = ["--cifar10-c", str(published), "--cifar10-1", str(published)]
    only = ["--only", "published_sets", "--corruption-images", "5"]
    assert main(["analyse", str(run), str(file), *both, *only]) == 0
    part = record_of(run, "published_sets")
    assert len(part["options"]["cifar10_c"]) == 16
    assert len(part["options"]["cifar10_1"]["cifar10.1_v6_data.npy"]) == 64
    (measured,) = part["runs"]
    assert measured["record"]["images"] == 5
    counts = 5 * np.array(measured["record"]["corrupted"])
    assert counts.shape == (15, 5)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert round(20 * measured["record"]["new"], 9).is_integer()
    text = (run / "report.html").read_text()
    assert "Published test sets" in text
    assert "mean accuracy on CIFAR-10-C" in text
