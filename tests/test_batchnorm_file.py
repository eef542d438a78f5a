"""The study of the report, as a command and as an experiment file."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.experiments import batchnorm
from cifar_jax.main import main

pytestmark = pytest.mark.usefixtures("cache", "blank_figures")


@pytest.fixture
def like_cifar10(tmp_path) -> Path:
    """An image folder with CIFAR-10's classes, 60 training and 20 test images of noise."""
    root, rng = tmp_path / "noise", np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "test"), CIFAR10.classes, range(6)):
        if split == "test" and number > 1:
            continue
        (root / split / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def test_the_batchnorm_study_is_such_a_file(like_cifar10, tmp_path):
    """Same numbers, claims and figures as the study without a file."""
    flags = ["--dataset", str(like_cifar10), "--folder-is-cifar10", "--val-examples", "12"]
    flags += ["--batch-size", "16", "--epochs", "1", "--seeds", "1"]
    file = Path(batchnorm.__file__)
    plain, own = tmp_path / "plain", tmp_path / "own"
    assert main(["study", *flags, "--workdir", str(plain)]) == 0
    assert main(["study", str(file), *flags, "--workdir", str(own)]) == 0
    for arm in ("none", "batch"):
        first, second = (np.load(w / arm / "seed42" / "predictions.npz") for w in (plain, own))
        assert np.array_equal(first["logits"], second["logits"])
    first, second = (json.loads((w / "summary.json").read_text()) for w in (plain, own))
    assert len(first["claims"]) == 7
    for key in ("claims", "arms", "labels", "per_arm"):
        assert without_times(first[key]) == without_times(second[key])
    figures = [sorted(p.name for p in (w / "figures").iterdir()) for w in (plain, own)]
    assert figures[0] == figures[1]
    assert len(figures[0]) >= 18
    assert "What does Batch Normalization change" in (own / "report.html").read_text()


def without_times(value: Any) -> Any:
    """A part of a summary without the numbers that the clock decides."""
    if isinstance(value, dict):
        timed = value.get("id") == "time_overhead"
        kept = ("id", "claim", "published") if timed else value
        return {k: without_times(value[k]) for k in kept if "seconds" not in k and "time" not in k}
    return [without_times(one) for one in value] if isinstance(value, list) else value
