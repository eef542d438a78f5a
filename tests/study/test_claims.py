"""Each rule of the report's claims, on made-up studies whose answer is known."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from made_up import changed
from msgspec import structs
from scipy import stats

from cifar_jax.experiments import batchnorm
from cifar_jax.study.claims import on_dataset
from cifar_jax.study.collect import read_study, run_path
from cifar_jax.study.samples import Sample
from cifar_jax.study.statistics import estimate
from cifar_jax.study.verdicts import claim_rows, nearly_every_class


def decided(study, cifar10=True, **fields):
    """Rows of the report's claims, with other fields."""
    claims = [structs.replace(claim, **fields) for claim in on_dataset(batchnorm.claims, cifar10)]
    return {row["id"]: row for row in claim_rows(study, claims)}


def rows(workdir, cifar10=True, **fields):
    return decided(read_study(workdir), cifar10, **fields)


def verdict_on_classes(gains):
    return nearly_every_class(gains)[1]


def rows_without(workdir, name):
    """Of runs without a test image of a class."""

    def without(run):
        accuracy = {**run.results.per_class_accuracy, name: None}
        return changed(run, per_class_accuracy=accuracy)

    study = read_study(workdir)
    runs = {arm: [without(run) for run in row] for arm, row in study.runs.items()}
    return decided(dataclasses.replace(study, runs=runs))


def t_interval(values):
    return estimate(values).interval


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
    found = rows(make_study(seeds=(1, 2, 3, 4, 5, 6)), arm="none", than="batch")
    assert {row["verdict"] for row in found.values()} == {"not supported"}


def test_one_seed_decides_nothing(make_study):
    found = rows(make_study(seeds=(1,)))
    assert len(found) == 7
    for row in found.values():
        assert row["verdict"] == "undecided"
        assert row["interval"] is None
        assert row["published_inside_interval"] is None


def test_no_pair_no_rows(make_study):
    workdir = make_study(seeds=(1,))
    (run_path(workdir, "none", 1) / "results.json").unlink()
    assert rows(workdir) == {}


def test_figures_are_those_of_the_runs(make_study):
    workdir = make_study(seeds=(1, 2, 3))
    pairs = read_study(workdir).pairs("none", "batch")
    found = rows(workdir)
    points = [100 * (b.correct.mean() - a.correct.mean()) for a, b in pairs]
    assert found["accuracy_gain"]["interval"] == pytest.approx(t_interval(points), rel=1e-9)
    assert found["accuracy_gain"]["measured"] == f"{sum(points) / 3:+.2f} points"
    assert found["accuracy_gain"]["published_inside_interval"] is False
    percent = [
        100 * (b.results.train_seconds - a.results.train_seconds) / a.results.train_seconds
        for a, b in pairs
    ]
    assert found["time_overhead"]["interval"] == pytest.approx(t_interval(percent), rel=1e-9)
    early = [
        100 * (b.results.history[4].val_accuracy - a.results.history[9].val_accuracy)
        for a, b in pairs
    ]
    assert found["faster_convergence"]["measured"] == f"{sum(early) / 3:+.2f} points"
    gains = [
        {
            name: 100 * (value - a.results.per_class_accuracy[name])
            for name, value in b.results.per_class_accuracy.items()
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
    workdir = make_study(seeds=(1, 2, 3), n=1000)
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


def test_other_datasets_have_neither_published_numbers_nor_hard_classes(make_study):
    """Even where a class is called cat."""
    found = rows(make_study(seeds=(1, 2)), cifar10=False)
    assert "hard_classes_gain_most" not in found
    assert len(found) == 6
    for row in found.values():
        assert row["published"] is row["published_inside_interval"] is None


def test_a_hard_class_without_test_images(make_study):
    workdir = make_study(seeds=(1, 2))
    row = rows_without(workdir, "cat")["hard_classes_gain_most"]
    assert row["verdict"] == "undecided"
    assert row["measured"] == "a class of cat, dog, deer has no test image"


def test_on_few_images_the_contrast_of_classes_counts_their_error(make_study):
    """Its variance is that of a difference of means of classes."""
    workdir = make_study(seeds=(1, 2, 3), n=60)
    pairs = read_study(workdir).pairs("none", "batch")
    gains = 100 * np.mean([b.correct.astype(float) - a.correct for a, b in pairs], axis=0)
    label = pairs[0][0].label
    weights = {0: -1 / 2, 1: 1 / 3, 2: 1 / 3, 3: 1 / 3, 4: -1 / 2}
    variance = sum(w**2 * gains[label == c].var() / 12 for c, w in weights.items()) * 60 / 59
    seeds = [
        sum(
            w * 100 * (b.correct[label == c].mean() - a.correct[label == c].mean())
            for c, w in weights.items()
        )
        for a, b in pairs
    ]
    t = stats.t.ppf(0.975, [2, 59])
    half = np.sqrt(t[0] ** 2 * np.var(seeds, ddof=1) / 3 + t[1] ** 2 * variance)
    low, high = rows(workdir)["hard_classes_gain_most"]["interval"]
    assert (high - low) / 2 == pytest.approx(half, rel=1e-9)
    assert (high + low) / 2 == pytest.approx(np.mean(seeds), rel=1e-9)


def test_a_class_without_test_images_is_left_out(make_study):
    workdir = make_study(seeds=(1, 2, 3, 4, 5, 6))
    assert rows_without(workdir, "ship")["nearly_every_class"]["measured"].startswith(
        "4 of 4 classes"
    )


def class_gains(better, worse, unclear, seeds=3):
    """Gains of 1,000 images a class: clearly above 0, clearly below, within the noise."""
    noise = np.linspace(-0.01, 0.01, seeds) if seeds > 1 else np.zeros(1)
    images = np.tile([0.0, 0.0, 0.0, 1.0, -1.0], 200)
    levels = [5.0] * better + [-5.0] * worse + [0.001] * unclear
    return {
        str(at): Sample((level + noise).tolist(), images, -100.0, 100.0)
        for at, level in enumerate(levels)
    }


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize(
    ("better", "worse", "unclear", "verdict"),
    [
        (2, 0, 0, "undecided"),  # of two classes nothing is "nearly every"
        (1, 1, 0, "undecided"),
        (0, 2, 0, "undecided"),
        (3, 0, 0, "undecided"),
        (4, 0, 0, "undecided"),
        (5, 0, 0, "supported"),
        (4, 0, 1, "supported"),
        (4, 1, 0, "undecided"),
        (3, 0, 2, "undecided"),
        (3, 2, 0, "not supported"),
        (10, 0, 0, "supported"),
        (9, 0, 1, "supported"),
        (9, 1, 0, "undecided"),
        (8, 0, 2, "undecided"),
        (8, 2, 0, "not supported"),
        (0, 0, 10, "undecided"),
        (99, 0, 1, "supported"),
        (99, 1, 0, "undecided"),
        (98, 0, 2, "undecided"),
        (98, 2, 0, "not supported"),
    ],
)
def test_nearly_every_class_allows_one_that_is_not_clear(better, worse, unclear, seeds, verdict):
    if seeds == 2 and better + worse + unclear == 100 and worse:
        verdict = "undecided"  # two seeds cannot show two of a hundred classes to be worse
    assert verdict_on_classes(class_gains(better, worse, unclear, seeds)) == verdict


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_one_seed_decides_nothing_about_classes(classes):
    measured, verdict, _ = nearly_every_class(class_gains(classes, 0, 0, seeds=1))
    assert verdict == "undecided"
    assert "0 clearly higher" in measured


def test_of_many_classes_some_look_worse_by_chance():
    """No class differs: "two or more clearly worse" must stay as rare as any false verdict."""
    rng = np.random.default_rng(0)
    images = np.tile([0.0, 0.0, 0.0, 1.0, -1.0], 200)
    refuted = 0
    for _ in range(40):
        gains = {
            str(at): Sample(row.tolist(), images, -100.0, 100.0)
            for at, row in enumerate(rng.normal(0, 1, (100, 3)))
        }
        refuted += verdict_on_classes(gains) != "undecided"
    assert refuted <= 2


def test_two_classes_of_which_one_gets_worse_do_not_support_the_claim():
    """Random pixels, 24 seeds: a net that says the other class more often."""
    rng = np.random.default_rng(1)
    gain = rng.normal(20, 5, 24)
    gains = {
        "a": Sample(gain.tolist(), rng.choice([-100.0, 0.0, 100.0], 10), -100.0, 100.0),
        "b": Sample((-gain).tolist(), rng.choice([-100.0, 0.0, 100.0], 10), -100.0, 100.0),
    }
    _, verdict, rule = nearly_every_class(gains)
    assert verdict == "undecided"
    assert "fewer than 5 classes" in rule


@pytest.mark.parametrize("seeds", [(1,), (1, 2), (1, 2, 3)])
def test_no_rule_decides_without_a_spread(make_study, seeds):
    """Every seed is the same run: all differences are equal."""
    workdir = make_study(seeds=seeds, n=50)
    for arm in ("none", "batch"):
        first = run_path(workdir, arm, 1)
        for seed in seeds[1:]:
            directory = run_path(workdir, arm, seed)
            results = json.loads((first / "results.json").read_text())
            results["seed"] = results["config"]["training"]["seed"] = seed
            (directory / "results.json").write_text(json.dumps(results))
            shutil.copy(first / "predictions.npz", directory)
    for name, row in rows(workdir).items():
        if name in ("accuracy_gain", "nearly_every_class", "hard_classes_gain_most"):
            continue  # decided by the test images' error
        assert row["verdict"] == "undecided"
        assert row["interval"] is None


def test_classes_without_an_interval_count_among_the_comparisons():
    """Two of ten are worse, each with p = 0.02: too little for ten comparisons."""
    step = np.array([-1.0, 0.0, 1.0])
    level = stats.t.isf(0.01, 2) / np.sqrt(3)
    images = np.tile([-1.0, 0.0], 500)
    gains = {str(at): Sample((step - level).tolist(), images) for at in range(2)}
    gains |= {str(at): Sample([0.0] * 3, np.zeros(1000)) for at in range(2, 10)}
    assert [gain.estimate().p for gain in gains.values()] == [pytest.approx(0.02)] * 2 + [None] * 8
    measured, verdict, _ = nearly_every_class(gains)
    assert "2 clearly lower" in measured
    assert verdict == "undecided"
