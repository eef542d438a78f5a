"""Results are written before any figure is drawn, and figures cannot cost them."""

import numpy as np
import pytest
from made_up import MADE
from PIL import Image

from cifar_jax.commands import figures as figures_of_run
from cifar_jax.commands.figures import draw
from cifar_jax.report import figures
from cifar_jax.runner import outcome
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.runner.results import DatasetRecord, EpochRow
from cifar_jax.storage import read_sealed

ROW = {
    "epoch": 1,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "val_loss": 1.0,
    "val_accuracy": 0.5,
    "learning_rate": 0.1,
    "seconds": 1.0,
    "images_per_second": 10.0,
}


def finish(workdir, classes):
    """Write the results of a run with random predictions."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(classes, classes)).astype(np.float32)
    labels = np.arange(classes, dtype=np.int32)
    evaluation = evaluate_logits(logits, labels)
    sizes = {"n_train": 10, "n_val": 10, "n_test": classes}
    names = tuple(f"kind {i}" for i in range(classes))
    made = {k: v for k, v in MADE.items() if k not in ("versions", "git_revision", "finished")}
    common = {
        **made,
        "config": {},
        "dataset": DatasetRecord(
            name="folder-x", fingerprint="f" * 64, classes=names, notes=(), **sizes
        ),
        "model": "cnn",
        "norm": "none",
        "seed": 1,
        "num_params": 1,
        "train_seconds": 1.0,
        "history": (EpochRow(**ROW),),
        "peak_memory_bytes": 1,
    }
    return outcome.write_finished(workdir, evaluation, logits, labels, **common)


def test_results_are_there_before_the_figures_and_without_them(tmp_path, monkeypatch):
    results = finish(tmp_path, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "predictions.npz"}
    before = read_sealed(tmp_path / "results.json")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(figures, "training_curves", fail)
    monkeypatch.setattr(figures, "confusion_matrix", fail)
    _, problems = draw(tmp_path, results)
    assert len(problems) == 2
    assert all(line.startswith("warning: ") and "out of memory" in line for line in problems)
    after = read_sealed(tmp_path / "results.json")
    unlike = {key for key in before if before[key] != after[key]}
    assert unlike == {"peak_memory_bytes", "sha256"}
    assert not list(tmp_path.glob(".*"))


def test_the_peak_of_memory_is_that_after_the_figures(tmp_path, monkeypatch):
    results = finish(tmp_path, 3)
    monkeypatch.setattr(
        figures_of_run, "peak_memory_bytes", lambda: 100 + len(list(tmp_path.glob("*.png")))
    )
    final, problems = draw(tmp_path, results)
    assert problems == []
    assert final.peak_memory_bytes == 102
    assert read_sealed(tmp_path / "results.json")["peak_memory_bytes"] == 102


@pytest.mark.parametrize(("classes", "kept"), [(200, True), (1000, False)])
def test_results_of_many_classes_are_small(tmp_path, classes, kept):
    results = finish(tmp_path, classes)
    assert (results.confusion_matrix is not None) is kept
    assert (tmp_path / "results.json").stat().st_size < 1_000_000
    with np.load(tmp_path / "predictions.npz") as predictions:
        assert predictions["predicted"].shape == (classes,)


def test_the_figures_of_many_classes_are_bounded(tmp_path):
    results = finish(tmp_path, 300)
    _, problems = draw(tmp_path, results)
    assert problems == []
    for name in ("training_curves.png", "confusion_matrix.png"):
        with Image.open(tmp_path / name) as image:
            assert max(image.size) < 2000
