"""The examples of docs/library.md and of the docstrings run as they are written."""

import doctest
from pathlib import Path

import pytest

from cifar_jax.library import comparison, images, training

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pytestmark = pytest.mark.usefixtures("cache")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # An example writes a file.
    page = str(ROOT / "docs" / "library.md")
    failed, tried = doctest.testfile(page, module_relative=False, optionflags=OPTIONS)
    assert not failed
    assert tried > 30


@pytest.mark.parametrize("module", [images, training, comparison])
def test_docstrings(module: object) -> None:
    failed, tried = doctest.testmod(module, optionflags=OPTIONS)  # type: ignore[arg-type]
    assert not failed
    assert tried
