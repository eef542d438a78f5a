"""Images that open while JAX is imported: only cached ones, and once."""

from pathlib import Path

import pytest

from cifar_jax.config.settings import DataConfig
from cifar_jax.runner import early


def test_cached_images_are_opened_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_JAX_CACHE", str(tmp_path))
    data = DataConfig(dataset=str(folder))
    early.begin(data)
    assert early.opened(data) is None, "they would have to be decoded"
    dataset = early.open_named(data)
    early.begin(data)
    found = early.opened(data)
    assert found is not None
    assert found.fingerprint == dataset.fingerprint
    assert early.opened(data) is None


def test_nothing_is_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_JAX_CACHE", str(tmp_path / "images"))
    for name in (str(folder), "synthetic", "no such folder"):
        early.begin(DataConfig(dataset=name))
        assert early.opened(DataConfig(dataset=name)) is None
    assert not (tmp_path / "images").exists()
