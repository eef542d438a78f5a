"""Other datasets than CIFAR-10, from the command line to the report."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import test_sources_formats as formats
from PIL import Image

from cifar_jax.data.sources import published
from cifar_jax.main import main
from cifar_jax.study.network import restore

COUNTS = (40, 20)


@pytest.fixture
def clothes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a tiny Fashion-MNIST."""
    monkeypatch.setattr(formats, "COUNTS", COUNTS)
    spec = formats.made("fashion_mnist", tmp_path / "data")
    monkeypatch.setitem(published.PUBLISHED, "fashion_mnist", spec)
    monkeypatch.setenv("CIFAR_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


@pytest.mark.usefixtures("blank_figures", "small_cnn")
def test_grey_images_train_from_the_command_line(
    clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    argv = ["--dataset", "fashion_mnist", "--data-dir", str(clothes), "--workdir", str(run)]
    assert main([*argv, "--epochs", "1"]) == 0
    assert "normalised by mean 0." in capsys.readouterr().out
    record = json.loads((run / "results.json").read_text())
    assert record["dataset"]["image_shape"] == [28, 28, 1]
    assert record["dataset"]["classes"][9] == "Ankle boot"
    images = formats.drawn(formats.FASHION_MNIST, 0)[0]
    assert float(record["config"]["data"]["mean"]) == pytest.approx((images / 255).mean(), abs=1e-4)
    # The same settings resume it, and its network can be restored.
    assert main([*argv, "--epochs", "2", "--resume"]) == 0
    network = restore(run)
    assert network.logits(images[:3]).shape == (3, 10)
    assert network.image_shape == (28, 28, 1)
    argv[-1] = str(tmp_path / "other")
    assert main([*argv, "--mean", "0.1,0.2,0.3", "--epochs", "1"]) == 2
    assert "--mean 0.1,0.2,0.3: the images have 1 channel" in capsys.readouterr().err


def write_folder(folder: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        for name in ("left", "right"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def test_a_folder_with_its_own_validation_images_of_64_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cifar_jax.config.settings import Config, DataConfig
    from cifar_jax.runner.prepare import open_dataset, split_rows

    monkeypatch.setenv("CIFAR_JAX_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path / "images", 64)
    data = DataConfig(dataset=str(tmp_path / "images"), image_size=64, val_split="val")
    config, images = open_dataset(Config(data=data))
    assert images.train_images.shape == (22, 64, 64, 3)
    assert config.data.val_examples == 6
    train, val = split_rows(config, images)
    assert sorted(train) == list(range(16))
    assert val.tolist() == list(range(16, 22))
    found = images.train_images[val[3]]
    with Image.open(tmp_path / "images/val/right/0.png") as file:
        np.testing.assert_array_equal(found, np.asarray(file))
    # A subset of the classes keeps the split, and so does dropping equal images.
    chosen = dataclasses.replace(data, classes="right,left", drop_duplicates=True)
    assert open_dataset(Config(data=chosen))[1].n_val == 6
    argv = ["--dataset", str(tmp_path / "images"), "--image-size", "64", "--val-split", "val"]
    assert main([*argv, "--val-examples", "3", "--workdir", str(tmp_path / "run")]) == 2
    assert "6 validation images of its own" in capsys.readouterr().err
    assert main([*argv[:4], "--val-split", "dev", "--workdir", str(tmp_path / "run")]) == 2
    assert "images/dev: no such folder" in capsys.readouterr().err
