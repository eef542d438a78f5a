"""Each study in `examples` runs from end to end in a tiny form, and does what it says."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cifar_jax as cj
from cifar_jax.main import main
from cifar_jax.runner import session as sessions
from cifar_jax.study.file import load_file

pytestmark = pytest.mark.usefixtures("cache", "blank_figures")

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
# Two batches: the program has no partial batch, and compiles in half the time.
FLAGS = ("--seeds", "2", "--batch-size", "32", "--train-examples", "64", "--val-examples", "16")


SMALLER = {
    'norm="batch"': 'norm="batch", widths=(4,), hidden=8',
    "depth: int = 4": "depth: int = 1",
    "per_class=100": "per_class=2",
    "per_class=20": "per_class=1",
    "widths=(16, 32, 64), hidden=128": "widths=(4,), hidden=8",
    "widths=(32, 64, 128), hidden=256": "widths=(8,), hidden=8",
    "(64, 256, 256)": "(4, 4, 4)",
    "(64, 128, 256, 512)": "(4, 4)",
    "(2, 2, 2, 2)": "(1, 1)",
    "epochs=30": "epochs=3",
    "epochs=16": "epochs=2",
}

FEW_ARMS = {
    "budget": ("--arms", "narrow,wide_short"),
    "airbench94_ablation": ("--arms", "full,no_muon"),
}


def tiny(name: str, folder: Path) -> Path:
    """Write an example with a smaller network and fewer images into a folder."""
    if name == "airbench94_ablation":  # It imports the recipe.
        tiny("airbench94", folder)
    text = (EXAMPLES / f"{name}.py").read_text()
    for written, small in SMALLER.items():
        if written != 'norm="batch"' or name not in ("budget", "resnet18_96"):  # They have widths.
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
    own = FEW_ARMS.get(name, ()) + (() if name == "budget" else ("--epochs", "1"))
    summary = study(name, ten, tmp_path, *own)
    assert summary["title"].endswith("?")
    assert (tmp_path / "w" / "report.md").read_text().startswith(f"# {summary['title']} (")
    assert summary["missing"] == []
    assert len(summary["claims"]) > 0
    for word in ("Command", "Cost", "Answer"):
        assert f"\n{word}: " in (EXAMPLES / f"{name}.py").read_text()
    if name == "budget":
        lengths = [row["epochs"] for row in summary["per_arm"].values()]
        assert lengths == [3, 2]
        text = (tmp_path / "w" / "report.md").read_text()
        assert "2 to 3 epochs of 64 images" in text
        assert "| epochs, wide at equal time | 2 epochs |" in text


def test_another_gamma_of_the_focal_loss_needs_no_compilation(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, compile_epoch = [], sessions.compile_device_epoch
    monkeypatch.setattr(
        sessions, "compile_device_epoch", lambda *a: compiled.append(a) or compile_epoch(*a)
    )
    flags = ("--epochs", "1", "--arms", "focal", "--sweep", "hyper.gamma=0.5,1,2")
    summary = study("focal", ten, tmp_path, *flags)
    assert len(compiled) == 1
    losses = [row["per_arm"]["focal"]["test_loss"]["mean"] for row in summary["per_value"]]
    assert len(set(losses)) == 3
    assert "gamma" in (tmp_path / "w" / "report.md").read_text()


def test_the_focal_loss_is_that_of_the_paper(tmp_path: Path) -> None:
    loss = load_file(tiny("focal", tmp_path)).arms["focal"].experiment.loss
    logits, labels = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]], np.float32), np.array([0, 2])
    p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[[0, 1], labels]
    for gamma in (0.0, 0.5, 2.0):
        expected = np.mean(-((1 - p) ** gamma) * np.log(p))
        hyper = SimpleNamespace(gamma=gamma)
        assert float(loss(jnp.asarray(logits), labels, hyper)) == pytest.approx(expected, rel=1e-5)


def test_the_running_mean_of_the_parameters_is_evaluated(
    tiny_data: cj.Data, tmp_path: Path
) -> None:
    """Against NumPy; float32 rounds a few times in each of 6 steps."""
    arms = load_file(tiny("ema", tmp_path)).arms
    last, mean = arms["last"].experiment, arms["mean"].experiment
    images, labels = tiny_data.train_images[:8], tiny_data.train_labels[:8]

    def trained(experiment: cj.Experiment) -> tuple[list[Any], cj.TrainState]:
        state = cj.init_state(experiment, jax.random.key(0), (8, 8, 3))
        step = jax.jit(
            lambda state: cj.train_step(experiment, cj.Hyper(), 8, state, images, labels)
        )
        seen = [state.params]
        for _ in range(6):
            state = step(state)
            seen.append(state.params)
        return seen, state

    seen, state = trained(mean)
    expected = jax.tree.map(np.asarray, seen[0])
    for params in seen[1:]:
        expected = jax.tree.map(lambda m, p: 0.99 * m + 0.01 * np.asarray(p), expected, params)
    evaluated, statistics = mean.evaluated(state)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), evaluated, expected)
    # Both arms train in the same way.
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), seen[-1], trained(last)[0][-1]
    )
    logits = mean.model.apply(
        {"params": expected, "batch_stats": statistics},
        mean.inputs.evaluate(tiny_data.val_images),
        train=False,
    )
    np.testing.assert_allclose(cj.predict(mean, state, tiny_data.val_images), logits, atol=1e-5)
