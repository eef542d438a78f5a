"""Each claim's rule, on made-up studies whose answer is known."""

import json

import pytest

from cifar_jax.study.claims import claims, decide, nearly_every_class
from cifar_jax.study.collect import read_study, run_path
from cifar_jax.study.statistics import t_interval


def rows(workdir, arms=("none", "batch")):
    return {row["id"]: row for row in claims(read_study(workdir).pairs(*arms))}


@pytest.mark.parametrize(
    ("interval", "bound", "above", "below"),
    [
        (None, 0, "undecided", "undecided"),
        ((0.1, 0.5), 0, "supported", "not supported"),
        ((-0.5, -0.1), 0, "not supported", "supported"),
        ((-0.1, 0.5), 0, "undecided", "undecided"),
        ((-0.5, -0.1), -1, "supported", "not supported"),
        ((0.0, 0.0), 0, "undecided", "undecided"),
    ],
)
def test_decide(interval, bound, above, below):
    assert decide(interval, bound) == above
    assert decide(interval, bound, above=False) == below


def test_true_claims_are_supported(make_study):
    found = rows(make_study(seeds=(1, 2, 3, 4, 5, 6)))
    assert {name: row["verdict"] for name, row in found.items()} == dict.fromkeys(
        [
            "accuracy_gain",
            "faster_convergence",
            "smoother_train_loss",
            "smoother_val_loss",
            "nearly_every_class",
            "hard_classes_gain_most",
            "time_overhead",
        ],
        "supported",
    )


def test_the_arms_exchanged_refute_every_claim(make_study):
    found = rows(make_study(seeds=(1, 2, 3, 4, 5, 6)), ("batch", "none"))
    assert {row["verdict"] for row in found.values()} == {"not supported"}


def test_one_seed_decides_nothing(make_study):
    found = rows(make_study(seeds=(1,)))
    assert len(found) == 7
    for row in found.values():
        assert row["verdict"] == "undecided"
        assert row["interval"] is None
        assert row["published_inside_interval"] is None


def test_no_pair_no_rows():
    assert claims([]) == []


def test_figures_are_those_of_the_runs(make_study):
    workdir = make_study(seeds=(1, 2, 3))
    pairs = read_study(workdir).pairs("none", "batch")
    found = rows(workdir)
    points = [100 * (b.correct.mean() - a.correct.mean()) for a, b in pairs]
    assert found["accuracy_gain"]["interval"] == pytest.approx(t_interval(points), rel=1e-9)
    assert found["accuracy_gain"]["measured"] == f"{sum(points) / 3:+.2f} points"
    assert found["accuracy_gain"]["published_inside_interval"] is False
    percent = [
        100 * (b.results["train_seconds"] - a.results["train_seconds"]) / a.results["train_seconds"]
        for a, b in pairs
    ]
    assert found["time_overhead"]["interval"] == pytest.approx(t_interval(percent), rel=1e-9)
    early = [
        100 * (b.results["history"][4]["val_accuracy"] - a.results["history"][9]["val_accuracy"])
        for a, b in pairs
    ]
    assert found["faster_convergence"]["measured"] == f"{sum(early) / 3:+.2f} points"
    gains = [
        {
            name: 100 * (value - a.results["per_class_accuracy"][name])
            for name, value in b.results["per_class_accuracy"].items()
        }
        for a, b in pairs
    ]
    contrast = [(g["cat"] + g["dog"] + g["deer"]) / 3 - (g["bird"] + g["ship"]) / 2 for g in gains]
    assert found["hard_classes_gain_most"]["interval"] == pytest.approx(
        t_interval(contrast), rel=1e-9
    )


@pytest.mark.parametrize(("gain", "inside"), [(3.47, True), (3.6, False), (3.34, False)])
def test_whether_the_published_gain_lies_in_the_interval(make_study, gain, inside):
    """Three differences 0.05 points apart: the interval is the mean -+ 0.124 points."""
    workdir = make_study(seeds=(1, 2, 3), n=50)
    for seed in (1, 2, 3):
        for arm, accuracy in (("none", 0.75), ("batch", 0.75 + gain / 100 + 5e-4 * (seed - 2))):
            path = run_path(workdir, arm, seed) / "results.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": accuracy}))
    assert rows(workdir)["accuracy_gain"]["published_inside_interval"] is inside


def test_short_runs_cannot_answer_about_later_epochs(make_study):
    found = rows(make_study(epochs=4))
    for name in ("faster_convergence", "smoother_train_loss", "smoother_val_loss"):
        assert found[name]["verdict"] == "undecided"
        assert found[name]["interval"] is None
    assert found["faster_convergence"]["measured"] == "needs 10 epochs, these runs have 4"
    assert found["accuracy_gain"]["verdict"] == "supported"


def test_classes_that_the_dataset_lacks(make_study):
    workdir = make_study(seeds=(1, 2))
    for arm in ("none", "batch"):
        for seed in (1, 2):
            path = run_path(workdir, arm, seed) / "results.json"
            path.write_text(path.read_text().replace('"cat"', '"cow"'))
    row = rows(workdir)["hard_classes_gain_most"]
    assert row["verdict"] == "undecided"
    assert row["measured"] == "no classes cat, dog, deer in this dataset"


def test_a_class_without_test_images_is_left_out(make_study):
    workdir = make_study(seeds=(1, 2, 3, 4, 5, 6))
    for arm in ("none", "batch"):
        for seed in range(1, 7):
            path = run_path(workdir, arm, seed) / "results.json"
            results = json.loads(path.read_text())
            results["per_class_accuracy"]["ship"] = None
            path.write_text(json.dumps(results))
    assert rows(workdir)["nearly_every_class"]["measured"].startswith("4 of 4 classes")


@pytest.mark.parametrize(
    ("signs", "verdict"),
    [
        ([1, 1, 1, 1], "supported"),
        ([1, 1, 1, -1], "supported"),
        ([1, 1, 1, 0], "supported"),
        ([1, 1, 0, 0], "undecided"),
        ([1, 1, 0, -1], "undecided"),
        ([1, 1, -1, -1], "not supported"),
    ],
)
def test_nearly_every_class_allows_one_exception(signs, verdict):
    """A class's gain is clear (+-1) or within the noise (0)."""
    gains = {
        str(i): [2.0 * sign + noise for noise in (-0.5, 0.0, 0.5)] for i, sign in enumerate(signs)
    }
    assert nearly_every_class(gains)["verdict"] == verdict
