"""The examples of the pages and of the docstrings run as they are written."""

import doctest
from pathlib import Path

import pytest

from cifar_jax.library import comparison, images, training

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize(
    "page", [path for path in sorted((ROOT / "docs").glob("*.md")) if ">>> " in path.read_text()]
)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # An example writes a file.
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=OPTIONS)
    assert not failed
    assert tried > 5


@pytest.mark.parametrize("module", [images, training, comparison])
def test_docstrings(module: object) -> None:
    failed, tried = doctest.testmod(module, optionflags=OPTIONS)  # type: ignore[arg-type]
    assert not failed
    assert tried
