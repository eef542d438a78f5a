"""Each study in `examples` runs from end to end in a tiny form, and does what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_jax.main import main

pytestmark = pytest.mark.usefixtures("cache", "blank_figures")

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
# Two batches: the program has no partial batch, and compiles in half the time.
FLAGS = ("--seeds", "2", "--batch-size", "32", "--train-examples", "64", "--val-examples", "16")


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of ten classes, 80 training and 20 test images of noise."""
    root = tmp_path_factory.mktemp("data") / "ten"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in range(10):
            directory = root / split / f"class{label}"
            directory.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(directory / f"{i}.png")
    return root


SMALLER = {
    'norm="batch"': 'norm="batch", widths=(4,), hidden=8',
    "depth: int = 4": "depth: int = 1",
    "per_class=100": "per_class=2",
    "per_class=20": "per_class=1",
    "widths=(16, 32, 64), hidden=128": "widths=(4,), hidden=8",
    "widths=(32, 64, 128), hidden=256": "widths=(8,), hidden=8",
    "epochs=30": "epochs=3",
    "epochs=12": "epochs=2",
}


def tiny(name: str, folder: Path) -> Path:
    """Write an example with a smaller network and fewer images into a folder."""
    text = (EXAMPLES / f"{name}.py").read_text()
    for written, small in SMALLER.items():
        if not (name == "budget" and written == 'norm="batch"'):  # It has widths.
            text = text.replace(written, small)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def study(name: str, ten: Path, folder: Path, *flags: str) -> dict[str, Any]:
    """Run a tiny study of an example, and return its summary."""
    images = () if name == "my_dataset" else ("--dataset", str(ten))
    workdir = folder / "w"
    argv = ["study", str(tiny(name, folder)), "--workdir", str(workdir), *images, *FLAGS, *flags]
    assert main(argv) == 0
    found: dict[str, Any] = json.loads((workdir / "summary.json").read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_example_asks_its_question(name: str, ten: Path, tmp_path: Path) -> None:
    summary = study(name, ten, tmp_path, *(() if name == "budget" else ("--epochs", "1")))
    assert summary["title"].endswith("?")
    assert (tmp_path / "w" / "report.md").read_text().startswith(f"# {summary['title']} (")
    assert summary["missing"] == []
    assert len(summary["claims"]) > 0
    for word in ("Command", "Cost", "Answer"):
        assert f"\n{word}: " in (EXAMPLES / f"{name}.py").read_text()
    if name == "budget":
        lengths = [row["epochs"] for row in summary["per_arm"].values()]
        assert lengths == [3, 3, 2]
        text = (tmp_path / "w" / "report.md").read_text()
        assert "2 to 3 epochs of 64 images" in text
        assert "| epochs, wide at equal time | 2 epochs |" in text
