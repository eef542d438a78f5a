"""Fixture of the tests of published and prepared datasets."""

import socket
from pathlib import Path

import pytest

from cifar_jax.data.sources import archives


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, and no network."""
    monkeypatch.setattr(archives, "unreachable", lambda url: "no connection")

    def connect(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
