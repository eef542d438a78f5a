"""Every way to train goes through `core.train.train_step`, which people read and copy."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cifar_jax.core import train
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState
from cifar_jax.main import main

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")

FLAGS = ("--val-examples", "20", "--batch-size", "16", "--epochs", "2")
BATCHES = {16, 7}  # of 55 training images
LOSS = 2.0


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the traces of a step that does not learn. Its loss is always `LOSS`."""
    seen: list[int] = []

    def step(
        experiment: Experiment,
        hyper: Hyper,
        n: int,
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
    ) -> TrainState:
        seen.append(len(labels))
        loss = LOSS * len(labels) / experiment.batch_size
        return state.replace(step=state.step + 1, loss_sum=state.loss_sum + loss)

    monkeypatch.setattr(train, "train_step", step)
    return seen


def train_losses(workdir: Path) -> list[list[float]]:
    """The history of each run in a directory."""
    found = [json.loads(path.read_text()) for path in sorted(workdir.rglob("results.json"))]
    return [[row["train_loss"] for row in results["history"]] for results in found]


@pytest.mark.parametrize("pipeline", ["device", "stream"])
def test_a_run(folder: Path, tmp_path: Path, sizes: list[int], pipeline: str) -> None:
    argv = ["--dataset", str(folder), "--workdir", str(tmp_path), *FLAGS, "--pipeline", pipeline]
    assert main(["train", *argv]) == 0
    assert set(sizes) == BATCHES
    assert train_losses(tmp_path) == [pytest.approx([LOSS, LOSS])]


@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_study(folder: Path, tmp_path: Path, sizes: list[int], parallel: str) -> None:
    argv = ["--dataset", str(folder), "--workdir", str(tmp_path), *FLAGS]
    argv += ["--arms", "none", "--seeds", "2", "--seed-parallelism", parallel]
    assert main(["study", *argv]) == 0
    assert set(sizes) == BATCHES
    assert train_losses(tmp_path) == [pytest.approx([LOSS, LOSS])] * 2
    assert not list(tmp_path.rglob("seed*/*.png")), "the page of a run draws its figures"


def test_the_search_for_a_nan(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: Any) -> TrainState:
        state: TrainState = arguments[3]
        return state.replace(step=state.step + 1, loss_sum=jnp.log(state.loss_sum - 1))

    monkeypatch.setattr(train, "train_step", step)
    argv = ["--dataset", str(folder), "--workdir", str(tmp_path), *FLAGS, "--debug-nans"]
    assert main(["train", *argv]) == 1
    found = json.loads((tmp_path / "results.json").read_text())["diverged"]
    assert (found["epoch"], found["step"]) == (1, None)
    assert "the first NaN is from log in the computation of loss_sum" in found["operation"]
    assert Path(__file__).name in found["operation"]
