"""The examples of the pages and docstrings run, with fewer images and layers."""

import doctest
import re
from pathlib import Path

import pytest

from cifar_jax.library import comparison, images, training

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Of each class, the tests' synthetic set has 30 test images in place of 1,000. A network may give
# one answer for all images of the page, which is then said in a line more.
SMALLER = "widths=(4, 8, 8), hidden=16", "widths=(4,), hidden=8"
FEWER = [
    ("3,000 test", "90 test"),
    ("2,000 test", "60 test"),
    ("(3, 2000, 2)", "(3, 60, 2)"),
    (".\n...", "..."),
]

pytestmark = pytest.mark.usefixtures("cache")


def run(test: doctest.DocTest) -> None:
    assert len(test.examples) > 3
    for example in test.examples:
        example.source = example.source.replace(*SMALLER)
        for written, fewer in FEWER:
            example.want = example.want.replace(written, fewer)
        # As many test images as there are, 1,000 at most.
        if example.source.endswith(".agreement.same\n"):
            example.want = re.sub("^1000$", "90", example.want, flags=re.M)
    assert not doctest.DocTestRunner(optionflags=OPTIONS).run(test).failed


@pytest.mark.parametrize(
    "page", [path for path in sorted((ROOT / "docs").glob("*.md")) if ">>> " in path.read_text()]
)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # An example writes a file.
    run(doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0))


@pytest.mark.parametrize("module", [images, training, comparison])
def test_docstrings(module: object) -> None:
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert found
    for test in found:
        run(test)
