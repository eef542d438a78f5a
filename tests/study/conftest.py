"""Made-up studies: directories as runs leave them, without any training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import MADE

from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.study.collect import run_path

CLASSES = ["bird", "cat", "deer", "dog", "ship"]
MakeStudy = Callable[..., Path]


def data_record(n: int) -> dict[str, Any]:
    """The record of made-up images, n of them for testing."""
    sizes = {"n_train": 10 * n, "n_val": n, "n_test": n}
    return {"name": "made-up", "fingerprint": "f" * 64, **sizes, "classes": CLASSES, "notes": []}


def fake_history(epochs: int, lead: float, wobble: float, rng: np.random.Generator) -> list[Any]:
    """A curve that falls, with noise, and drops with the learning rate every ten epochs."""
    rows = []
    luck = 1e-3 * rng.normal()
    for epoch in range(1, epochs + 1):
        fall = np.exp(-(epoch + lead) / 5) + 0.3 / (1 + (epoch - 1) // 10)
        train, val = fall + wobble * rng.normal(size=2)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": float(train + 0.5),
                "train_accuracy": float(0.8 - fall / 2),
                "val_loss": float(val + 0.5),
                "val_accuracy": float(0.85 + luck - fall / 2),
                "seconds": 2.0,
                "learning_rate": 0.01 * 0.1 ** ((epoch - 1) // 10),
                "images_per_second": 100.0,
            }
        )
    return rows


def write_run(workdir: Path, arm: str, seed: int, epochs: int, n: int) -> None:
    """A finished run whose BatchNorm is better, faster to learn, smoother and slower a step."""
    batch = arm == "batch"
    rng = np.random.default_rng([seed, batch])
    label = np.arange(n, dtype=np.int32) % len(CLASSES)
    logits = rng.normal(size=(n, len(CLASSES))).astype(np.float32)
    hard = np.isin(CLASSES, ["cat", "deer", "dog"])[label]
    gain = 0.8 + (0.4 + 0.6 * hard) * batch
    logits[np.arange(n), label] += gain
    evaluation = evaluate_logits(logits, label)
    history = fake_history(epochs, 5.5 * batch, 0.01 if batch else 0.04, rng)
    directory = run_path(workdir, arm, seed)
    directory.mkdir(parents=True)
    predicted = logits.argmax(axis=1).astype(np.int32)
    np.savez_compressed(
        directory / "predictions.npz", logits=logits, predicted=predicted, label=label
    )
    results = {
        "status": "finished",
        "dataset": data_record(n),
        "model": "cnn",
        "norm": arm,
        "seed": seed,
        "num_params": 621_322 if batch else 620_362,
        "config": {"model": {"norm": arm}, "training": {"seed": seed, "epochs": epochs}},
        "history": history,
        "train_seconds": (112.0 if batch else 100.0) + float(rng.normal()),
        **MADE,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "per_class_accuracy": dict(
            zip(CLASSES, evaluation.per_class_accuracy.tolist(), strict=True)
        ),
        "confusion_matrix": evaluation.confusion.tolist(),
        "predictions": "predictions.npz",
    }
    (directory / "results.json").write_text(json.dumps(results))


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Write a study: `make_study(arms, seeds, epochs=30, n=2000)` returns its directory."""

    def make(
        arms: tuple[str, ...] = ("none", "batch"),
        seeds: tuple[int, ...] = (1, 2, 3, 4),
        epochs: int = 30,
        n: int = 2000,
    ) -> Path:
        for arm in arms:
            for seed in seeds:
                write_run(tmp_path, arm, seed, epochs, n)
        plan = {
            "arms": arms,
            "seeds": seeds,
            "config": {"name": "made-up", "training": {"seed": min(seeds), "epochs": epochs}},
            "dataset": data_record(n),
        }
        (tmp_path / "study.json").write_text(json.dumps(plan))
        return tmp_path

    return make
