"""A small study from end to end: paired, resumable, each run once."""

import json

import numpy as np
import pytest

from cifar_jax.main import main
from cifar_jax.run_study import Group, plan

pytestmark = pytest.mark.usefixtures("cache")

FLAGS = ("--val-examples", "20", "--batch-size", "16", "--epochs", "2", "--seed", "3")


def study(folder, workdir, *flags: str) -> int:
    argv = ["study", "--dataset", str(folder), "--workdir", str(workdir), "--seeds", "2"]
    return main([*argv, *FLAGS, *flags])


def results_of(workdir, arm: str, seed: int):
    return json.loads((workdir / arm / f"seed{seed}" / "results.json").read_text())


def logits_of(workdir, arm: str, seed: int) -> np.ndarray:
    with np.load(workdir / arm / f"seed{seed}" / "predictions.npz") as predictions:
        return predictions["logits"]


@pytest.fixture(scope="module")
def finished(folder, cache, tmp_path_factory):
    """Directory of a study of two arms and two seeds."""
    workdir = tmp_path_factory.mktemp("studies") / "whole"
    assert study(folder, workdir) == 0
    return workdir


def test_every_run_leaves_what_a_single_run_leaves(finished, folder, tmp_path):
    argv = ["--dataset", str(folder), "--workdir", str(tmp_path / "one"), "--bn", *FLAGS]
    assert main([*argv, "--seed", "4"]) == 0
    assert np.array_equal(
        logits_of(finished, "batch", 4), np.load(tmp_path / "one" / "predictions.npz")["logits"]
    )
    left = {p.name for p in (finished / "batch" / "seed4").iterdir()}
    assert {p.name for p in (tmp_path / "one").iterdir()} <= left
    assert (tmp_path / "one" / "config.toml").read_text() == (
        finished / "batch" / "seed4" / "config.toml"
    ).read_text()


def test_the_report_is_written(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["arms"] == ["none", "batch"]
    assert summary["seeds"] == [3, 4]
    assert summary["missing"] == []
    differences = [
        results_of(finished, "batch", s)["test_accuracy"]
        - results_of(finished, "none", s)["test_accuracy"]
        for s in (3, 4)
    ]
    assert summary["paired"]["test_accuracy"]["differences"] == pytest.approx(differences)
    for name in ("report.html", "report.md"):
        assert "halves" in (finished / name).read_text()


def test_a_finished_study_trains_nothing_again(finished, folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.glob("*/seed*/**/*")}
    assert study(folder, finished) == 0
    assert "4 runs, 4 finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.glob("*/seed*/**/*")} == before


def test_a_study_that_was_stopped_goes_on(finished, folder, tmp_path):
    workdir = tmp_path / "w"
    assert study(folder, workdir, "--arms", "batch", "--seeds", "1") == 0
    # As if it had been killed before it wrote its results.
    (workdir / "batch" / "seed3" / "results.json").unlink()
    assert study(folder, workdir) == 0
    for arm in ("none", "batch"):
        for seed in (3, 4):
            assert np.array_equal(logits_of(workdir, arm, seed), logits_of(finished, arm, seed))


def test_seeds_trained_together_give_the_same_results(finished, folder, tmp_path):
    assert study(folder, tmp_path / "w", "--seed-parallelism", "2") == 0
    for arm in ("none", "batch"):
        for seed in (3, 4):
            together, alone = (results_of(w, arm, seed) for w in (tmp_path / "w", finished))
            assert together["seed_parallelism"] == 2
            # Another program rounds otherwise, and inputs near a switch of ReLU or pool amplify
            # that from step to step; another batch or draw would be off by far more.
            first, second = zip(together["history"], alone["history"], strict=True)
            assert first[0]["train_loss"] == pytest.approx(first[1]["train_loss"], rel=1e-4)
            assert second[0]["train_loss"] == pytest.approx(second[1]["train_loss"], rel=1e-2)
            assert together["test_loss"] == pytest.approx(alone["test_loss"], rel=2e-2)


def test_a_failed_run_is_reported_and_the_others_go_on(folder, tmp_path, capsys):
    argv = ("--lr", "1e5", "--arms", "none,batch", "--seeds", "1")
    workdir = tmp_path / "w"
    status = study(folder, workdir, *argv)
    assert status == 1
    assert "diverged" in capsys.readouterr().err
    assert (workdir / "none" / "seed3" / "failed.json").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--arms", "none,layers"], "--arms: 'layers' is not known; allowed: none, batch"),
        (["--arms", "none,none"], "an arm is named twice"),
        (["--seeds", "0"], "--seeds: 0 is out of range"),
        (["--seed-parallelism", "many"], "--seed-parallelism: 'many' is neither auto nor"),
        (["--seed", "4294967295"], "the last is above 2**32"),
    ],
)
def test_bad_study_is_one_line_and_leaves_nothing(folder, tmp_path, flags, said, capsys):
    assert study(folder, tmp_path / "w", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_another_study_in_the_directory_is_refused(finished, folder, capsys):
    assert study(folder, finished, "--lr", "0.5") == 2
    assert "holds another study: training.learning_rate: 0.01 -> 0.5" in capsys.readouterr().err


def test_a_directory_of_something_else_is_refused(folder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("")
    assert study(folder, tmp_path) == 2
    assert "is not empty and holds no study" in capsys.readouterr().err


def test_plan_pairs_seeds_and_groups_what_stands_alike():
    finished = {("none", 1): 0, ("batch", 1): 0, ("none", 2): 3, ("batch", 2): 0, ("batch", 3): 0}
    assert plan(("none", "batch"), (1, 2, 3), 1, finished) == [
        Group("none", (1,)),
        Group("batch", (1,)),
        Group("none", (2,)),
        Group("batch", (2,)),
        Group("batch", (3,)),
    ]
    assert plan(("none", "batch"), (1, 2, 3), 3, finished) == [
        Group("none", (1,)),
        Group("none", (2,)),
        Group("batch", (1, 2, 3)),
    ]
    assert plan(("none",), (1,), 1, {}) == []


def test_report_is_drawn_again_without_training(finished, capsys):
    (finished / "report.html").unlink()
    assert main(["report", "--workdir", str(finished)]) == 0
    assert (finished / "report.html").is_file()
    assert main(["report", "--workdir", str(finished / "batch")]) == 2
    assert "study.json" in capsys.readouterr().err
