"""The notebooks under examples/ run with fewer images, and have no outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
FEWER = [
    ("train_examples=1000, val_examples=500", "train_examples=50, val_examples=20"),
    ("train_examples=800, val_examples=200", "train_examples=256, val_examples=20"),
    ("widths=(8, 16), hidden=32", "widths=(4,), hidden=8"),
]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    whole = [cell.source for cell in cells]
    for written, few in FEWER:
        for cell in cells:
            cell.source = cell.source.replace(written, few)
    assert [cell.source for cell in cells] != whole
    monkeypatch.delenv("MPLBACKEND")  # The kernel has its own.
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    streams = [output for cell in cells for output in cell.outputs if output.get("name")]
    assert [output for output in streams if output.name == "stderr"] == []
    assert list(tmp_path.iterdir()) == []
