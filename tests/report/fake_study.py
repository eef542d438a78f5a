"""Plausible study directories without training: correlated logits, falling losses, real files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made_up import MADE

from cifar_jax.config import tables
from cifar_jax.config.settings import NORMS, Config
from cifar_jax.data.dataset import Dataset
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.study.collect import run_path
from cifar_jax.study.grid import Arm, Sweep, grid, norm_arm

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HARD = {"cat": 0.75, "dog": 0.85, "bird": 0.85, "deer": 0.9}
FINGERPRINT = "ab" * 32


def fake_images(name: str, classes: Sequence[str], n_train: int, n_test: int) -> Dataset:
    """Smooth coloured noise with balanced labels."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        coarse = rng.integers(30, 226, (n, 8, 8, 3), np.uint8)
        return coarse.repeat(4, axis=1).repeat(4, axis=2), np.arange(n, dtype=np.int32) % len(
            classes
        )

    train, test = draw(n_train), draw(n_test)
    return Dataset(name, *train, *test, tuple(classes), FINGERPRINT)


def history(seed: int, batch: bool, epochs: int, n_train: int) -> list[dict[str, Any]]:
    """Curves that fall towards the arm's level, with steps where the rate drops."""
    rng = np.random.default_rng([seed, 7, batch])
    rows = []
    pace, level = (4.0, 0.60) if batch else (7.0, 0.70)
    for epoch in range(1, epochs + 1):
        drop = 0.08 * sum(epoch > at for at in (10, 20))
        loss = level + 1.4 * np.exp(-epoch / pace) - drop + 0.02 * rng.normal()
        rows.append(
            {
                "epoch": epoch,
                "train_loss": loss + 0.08 * (1 - epoch / epochs) + 0.05,
                "train_accuracy": 1 - loss / 2.6,
                "val_loss": loss + 0.01 * rng.normal(),
                "val_accuracy": 1 - loss / 2.9 + 0.004 * rng.normal(),
                "seconds": (5.1 if batch else 4.5) + 0.1 * rng.normal(),
                "learning_rate": 0.01 * 0.1 ** ((epoch - 1) // 10),
                "images_per_second": n_train / 5,
            }
        )
    return rows


def run_config(dataset: Dataset, n_val: int, arm: Arm, seed: int, epochs: int) -> dict[str, Any]:
    """The tables of a run of an arm."""
    base = tables.from_dict(config(dataset, n_val, "none", seed, epochs), "made-up")
    return tables.to_dict(arm.config(base, seed))


def write_divergence(
    directory: Path, seed: int, arm: Arm, dataset: Dataset, epochs: int, n_val: int
) -> None:
    """`results.json` of a run that diverged."""
    directory.mkdir(parents=True)
    ended = {
        "status": "diverged",
        "diverged": {"epoch": 1, "step": 2},
        "dataset": record(dataset, n_val),
        "model": arm.config(Config(), seed).model.name,
        "norm": arm.name,
        "seed": seed,
        "config": run_config(dataset, n_val, arm, seed, epochs),
        "history": [],
        "num_params": 620_362,
        "train_seconds": 0,
        **MADE,
    }
    (directory / "results.json").write_text(json.dumps(ended))


def write_run(
    directory: Path, seed: int, arm: Arm, dataset: Dataset, epochs: int, n_val: int
) -> None:
    """`results.json` and `predictions.npz` of one run."""
    norm = arm.name
    label = np.asarray(dataset.test_labels)
    classes = dataset.classes
    shared = np.random.default_rng(5).normal(size=(len(label), len(classes)))
    noise = np.random.default_rng([seed, NORMS.index(norm)]).normal(size=shared.shape)
    strength = np.array([HARD.get(name, 1.0) for name in classes])[label]
    strength = strength * (3.2 if norm == "batch" else 2.9)
    logits = (1.2 * shared + 0.7 * noise).astype(np.float32)
    logits[np.arange(len(label)), label] += strength.astype(np.float32)
    logits *= 1.1
    evaluation = evaluate_logits(logits, label)
    n_train = len(dataset.train_labels) - n_val
    rows = history(seed, norm == "batch", epochs, n_train)
    directory.mkdir(parents=True)
    np.savez_compressed(
        directory / "predictions.npz",
        logits=logits,
        predicted=logits.argmax(axis=1).astype(np.int32),
        label=label,
    )
    per_class = evaluation.per_class_accuracy.tolist()
    results = {
        "status": "finished",
        "dataset": record(dataset, n_val),
        "model": arm.config(Config(), seed).model.name,
        "norm": norm,
        "seed": seed,
        "num_params": 621_322 if norm == "batch" else 620_362,
        "config": run_config(dataset, n_val, arm, seed, epochs),
        "history": rows,
        "train_seconds": sum(row["seconds"] for row in rows),
        **MADE,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "per_class_accuracy": dict(zip(classes, per_class, strict=True)),
        "confusion_matrix": evaluation.confusion.tolist() if len(classes) <= 200 else None,
        "predictions": "predictions.npz",
    }
    (directory / "results.json").write_text(json.dumps(results))


def config(dataset: Dataset, n_val: int, norm: str, seed: int, epochs: int) -> dict[str, Any]:
    """The tables of a run's configuration."""
    source = dataset.name
    if source.startswith("folder-"):
        source = f"/home/somebody/{source.removeprefix('folder-')}"
    return {
        "data": {
            "dataset": source,
            "val_examples": n_val,
            "split_seed": 42,
            "augment": True,
            "resize": False,
            "pipeline": "device",
        },
        "model": {
            "name": "cnn",
            "norm": norm,
            "dropout": 0.5,
            "num_classes": len(dataset.classes),
        },
        "training": {
            "seed": seed,
            "epochs": epochs,
            "batch_size": 128,
            "learning_rate": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0005,
            "decay_every": 10,
            "decay_factor": 0.1,
        },
    }


def record(dataset: Dataset, n_val: int) -> dict[str, Any]:
    """What results say about the data."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "n_train": len(dataset.train_labels) - n_val,
        "n_val": n_val,
        "n_test": len(dataset.test_labels),
        "classes": list(dataset.classes),
        "notes": list(dataset.notes),
    }


def write_study(
    workdir: Path,
    *,
    arms: Sequence[str] = ("none", "batch"),
    seeds: Sequence[int] = (42, 43, 44),
    missing: Sequence[tuple[str, int]] = (),
    name: str = "cifar10",
    classes: Sequence[str] = CLASSES,
    n_train: int = 300,
    n_test: int = 200,
    epochs: int = 12,
    sweep: Sweep | None = None,
    diverged: Sequence[tuple[str, int]] = (),
    notes: Sequence[str] = (),
) -> Dataset:
    """Write a study directory; returns the images that it is about.

    Args:
        missing, diverged: runs, as (directory of the arm, seed), that have no results.
    """
    n_val = n_train // 10
    dataset = replace(fake_images(name, classes, n_train, n_test), notes=tuple(notes))
    for arm in grid([norm_arm(name) for name in arms], sweep):
        for seed in seeds:
            directory = run_path(workdir, arm.directory, seed)
            if (arm.directory, seed) in diverged:
                write_divergence(directory, seed, arm, dataset, epochs, n_val)
            elif (arm.directory, seed) not in missing:
                write_run(directory, seed, arm, dataset, epochs, n_val)
    study = {
        "arms": list(arms),
        "seeds": list(seeds),
        "config": config(dataset, n_val, "none", seeds[0], epochs),
        "dataset": record(dataset, n_val),
    }
    if sweep:
        study["sweep"] = {"field": sweep.field, "values": list(sweep.values)}
    (workdir / "study.json").write_text(json.dumps(study))
    return dataset
