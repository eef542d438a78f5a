"""The commands of the pages that a reader follows run in a short form, in their order."""

import itertools
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from cifar_jax.main import main

ROOT = Path(__file__).parents[1]
PAGES = ["first-study", "your-own-idea", "how-to"]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
# Replaced, or added to what trains: few images, in two batches.
SHORT = {"--epochs": "1", "--train-examples": "32", "--val-examples": "16", "--batch-size": "16"}
SCORES = "arm,seed,accuracy\na,0,0.71\na,1,0.73\na,2,0.72\nb,0,0.74\nb,1,0.75\nb,2,0.76\n"

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")


def shell(page: str) -> list[str]:
    """Return the lines of a page's shell blocks."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def short(words: list[str], folder: Path) -> list[str]:
    """Return a command's arguments with few images, epochs and seeds, on any machine."""
    trains = words[0] == "study" or words[0].startswith("-")
    if not trains or "--resume" in words:
        return words
    given = dict(itertools.pairwise(words))
    own = {**SHORT, "--dataset": str(folder)}
    if words[0] == "study":  # One seed more where the page adds seeds.
        own["--seeds"] = "3" if int(given.get("--seeds", 2)) > 3 else "2"
    if "--sweep" in given:
        own["--sweep"] = ",".join(given["--sweep"].split(",")[:2])
    kept = list(words)
    for flag in (*own, "--device", "--threads"):
        if flag in kept:
            del kept[kept.index(flag) : kept.index(flag) + 2]
    return [*kept, *(word for pair in own.items() for word in pair)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(
    page: str, ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, name)
    Path("scores.csv").write_text(SCORES)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for name, block in zip(
        re.findall(r"Save this as `(.*?)`", text), PYTHON.findall(text), strict=True
    ):
        Path(name).write_text(block.replace('norm="batch"', 'norm="batch", widths=(8,), hidden=16'))
    ran = 0
    for line in shell(page):
        line = re.sub(r"^cifar-jax ", "python -m cifar_jax.main ", line)
        _, found, words = line.partition("python -m cifar_jax.main ")
        if found:
            assert main(short(shlex.split(words), ten)) == 0, line
            ran += 1
        else:
            assert line.startswith(("source ", "pip install ")), line
    assert ran >= 5


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "docs").glob("*.md")))
def test_code_that_is_shown_is_the_code(page: str) -> None:
    """`python docs/snippets.py` writes the present code into the pages."""
    refreshed = runpy.run_path(str(ROOT / "docs" / "snippets.py"))["refreshed"]
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert refreshed(text) == text


def test_the_first_answer_is_that_of_the_numbers() -> None:
    """`python docs/answers.py` draws its figures."""
    answers = runpy.run_path(str(ROOT / "docs" / "answers.py"))
    gain = answers["compared"](answers["kept"]())["test_accuracy"]
    mean, low, high = (100 * value for value in (gain["mean_difference"], *gain["ci_t"]))
    for page in ("README.md", "docs/batchnorm.md"):
        text = f"by {mean:+.2f} points, 95 % interval {low:.2f} to {high:.2f}.**"
        assert text in (ROOT / page).read_text(), page
    for build in answers["figures"]().values():
        assert len(build().axes) >= 1


def test_the_gallery_is_what_its_studies_left() -> None:
    """`python docs/gallery.py` writes it. Every example is in it, with its result or without."""
    made = runpy.run_path(str(ROOT / "docs" / "gallery.py"))["page"]()
    assert (ROOT / "docs" / "gallery.md").read_text() == made
