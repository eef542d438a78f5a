"""The numbers of a sweep: differences of differences, diverged runs, the best setting."""

import json

import numpy as np
import pytest
from scipy import stats

from cifar_jax.errors import UserError
from cifar_jax.study.collect import read_sweep, run_path
from cifar_jax.study.sweep import summarise_sweep

RATES = (0.01, 0.05, 0.1)
# Test accuracy of three seeds by norm and rate.
ACCURACY = {
    ("none", 0.01): (0.60, 0.62, 0.61),
    ("none", 0.05): (0.70, 0.69, 0.71),
    ("none", 0.1): (0.50, None, 0.52),
    ("batch", 0.01): (0.65, 0.66, 0.64),
    ("batch", 0.05): (0.73, 0.75, 0.72),
    ("batch", 0.1): (0.78, 0.75, 0.77),
}
CHANCE = 1 / 5  # of the five classes of the made-up studies


@pytest.fixture
def workdir(make_study):
    """Seeds 1, 2, 3; the baseline diverges once at the highest rate."""
    arms = tuple(f"{norm}-learning_rate-{rate}" for norm, rate in ACCURACY)
    workdir = make_study(arms=arms, seeds=(1, 2, 3), epochs=4, n=1000)
    for (norm, rate), row in ACCURACY.items():
        for seed, accuracy in enumerate(row, start=1):
            directory = run_path(workdir, f"{norm}-learning_rate-{rate}", seed)
            path = directory / "results.json"
            results = json.loads(path.read_text())
            results["norm"] = results["config"]["model"]["norm"] = norm
            results["config"]["training"]["learning_rate"] = rate
            if accuracy is None:
                ended = {"status": "diverged", "diverged": {"epoch": 1, "step": None}}
                path.write_text(json.dumps({**results, **ended}))
                continue
            results["history"][-1]["val_accuracy"] = accuracy - 0.01
            path.write_text(json.dumps({**results, "test_accuracy": accuracy}))
    path = workdir / "study.json"
    plan = {
        **json.loads(path.read_text()),
        "arms": ["none", "batch"],
        "sweep": {"field": "training.learning_rate", "values": RATES[::-1]},
    }
    path.write_text(json.dumps(plan))
    return workdir


def accuracies(norm, rate):
    return np.array([CHANCE if a is None else a for a in ACCURACY[norm, rate]])


def gains(rate):
    return accuracies("batch", rate) - accuracies("none", rate)


def test_is_strict_json_and_names_the_swept_setting(workdir):
    summary = summarise_sweep(read_sweep(workdir))
    json.dumps(summary, allow_nan=False)
    assert summary["sweep"] == {
        "field": "training.learning_rate",
        "name": "learning rate",
        "values": list(RATES),
    }
    assert summary["compared"] == ["none", "batch"]


def test_a_diverged_run_counts_as_chance_and_is_marked(workdir):
    summary = summarise_sweep(read_sweep(workdir))
    assert summary["diverged"] == [["none", 0.1, 2]]
    assert summary["missing"] == []
    (cell,) = (c for c in summary["cells"] if (c["arm"], c["value"]) == ("none", 0.1))
    assert cell["diverged"] == 1
    assert cell["test_accuracy"]["values"] == [0.50, CHANCE, 0.52]
    # Other numbers do not include it.
    assert cell["finished"]["test_loss"]["n"] == 2
    assert summary["gain"][2]["diverged_pairs"] == 1


def test_gains_are_paired_and_adjusted(workdir):
    summary = summarise_sweep(read_sweep(workdir))
    p_values = []
    for rate, row in zip(RATES, summary["gain"], strict=True):
        test = stats.ttest_rel(accuracies("batch", rate), accuracies("none", rate))
        assert row["differences"] == pytest.approx(gains(rate).tolist())
        assert row["ci_t"] == pytest.approx(list(test.confidence_interval()))
        assert row["p_t"] == pytest.approx(test.pvalue)
        p_values.append(test.pvalue)
    smallest = int(np.argmin(p_values))
    assert summary["gain"][smallest]["p_t_holm"] == pytest.approx(3 * p_values[smallest])


def test_every_value_is_compared_with_the_first_in_each_arm(workdir):
    found = summarise_sweep(read_sweep(workdir))["against_first_value"]
    assert [(row["arm"], row["value"]) for row in found] == [
        (norm, rate) for norm in ("none", "batch") for rate in RATES[1:]
    ]
    p_values = []
    for row in found:
        test = stats.ttest_rel(accuracies(row["arm"], row["value"]), accuracies(row["arm"], 0.01))
        assert row["ci_t"] == pytest.approx(list(test.confidence_interval()))
        assert row["p_t"] == pytest.approx(test.pvalue)
        p_values.append(test.pvalue)
    smallest = int(np.argmin(p_values))
    assert found[smallest]["p_t_holm"] == pytest.approx(4 * p_values[smallest])


def test_interaction_is_the_difference_of_the_differences_at_the_ends(workdir):
    found = summarise_sweep(read_sweep(workdir))["interaction"]
    test = stats.ttest_rel(gains(0.1), gains(0.01))
    assert (found["low"], found["high"], found["seeds"]) == (0.01, 0.1, [1, 2, 3])
    assert found["differences"] == pytest.approx((gains(0.1) - gains(0.01)).tolist())
    assert found["ci_t"] == pytest.approx(list(test.confidence_interval()))
    assert found["p_sign_flip"] == 0.25  # all three have the same sign


def test_each_arm_at_its_own_best(workdir):
    found = summarise_sweep(read_sweep(workdir))["at_best"]
    assert found["values"] == [0.05, 0.1]
    expected = accuracies("batch", 0.1) - accuracies("none", 0.05)
    assert found["differences"] == pytest.approx(expected.tolist())


def test_a_value_without_a_finished_run(workdir):
    for norm in ("none", "batch"):
        for seed in (1, 2, 3):
            path = run_path(workdir, f"{norm}-learning_rate-0.01", seed) / "results.json"
            path.unlink()
    summary = summarise_sweep(read_sweep(workdir))
    assert len(summary["missing"]) == 6
    assert summary["per_value"][0] is None
    assert summary["gain"][0]["n"] == summary["interaction"]["n"] == 0
    assert summary["interaction"]["mean_difference"] is None
    assert summary["gain"][1]["n"] == 3


def chosen(workdir):
    return {row["arm"]: row for row in summarise_sweep(read_sweep(workdir))["chosen"]}


def set_results(workdir, norm, rate, **changes):
    for seed in (1, 2, 3):
        path = run_path(workdir, f"{norm}-learning_rate-{rate}", seed) / "results.json"
        results = json.loads(path.read_text())
        if "validation" in changes:
            results["history"][-1]["val_accuracy"] = changes["validation"]
        if "test" in changes:
            results["test_accuracy"] = changes["test"]
        path.write_text(json.dumps(results))


def test_a_value_is_chosen_on_validation_and_reported(workdir):
    """The highest test accuracy is elsewhere, and does not count."""
    set_results(workdir, "none", 0.01, test=0.9)
    set_results(workdir, "none", 0.05, validation=0.8)
    row = chosen(workdir)["none"]
    assert (row["value"], row["among"], row["tied"]) == (0.05, 3, [])
    assert row["val_accuracy"] == pytest.approx(0.8)
    assert row["test_accuracy"]["values"] == list(ACCURACY["none", 0.05])
    against = row["against_first_value"]
    assert against["value"] == 0.05
    assert against["p_t_holm"] >= against["p_t"]
    assert row["adjusted_for"] == 4


def test_values_that_tie_are_named_and_the_first_is_taken(workdir):
    for rate in (0.01, 0.05):
        set_results(workdir, "none", rate, validation=0.8)
    row = chosen(workdir)["none"]
    assert (row["value"], row["tied"]) == (0.01, [0.05])
    assert row["against_first_value"] is None


def test_values_are_chosen_over_the_seeds_that_all_have(workdir):
    """One lucky seed does not choose its value."""
    set_results(workdir, "batch", 0.01, validation=0.99)
    for seed in (2, 3):
        (run_path(workdir, "batch-learning_rate-0.01", seed) / "results.json").unlink()
    assert chosen(workdir)["batch"]["seeds"] == [1]
    (run_path(workdir, "batch-learning_rate-0.05", 1) / "results.json").unlink()
    assert "batch" not in chosen(workdir)
    assert summarise_sweep(read_sweep(workdir))["at_best"] == {}


def test_all_runs_at_the_first_value_diverged(workdir):
    """They count as chance, and the others are compared with them."""
    ended = {"status": "diverged", "diverged": {"epoch": 1, "step": None}}
    for norm in ("none", "batch"):
        for seed in (1, 2, 3):
            path = run_path(workdir, f"{norm}-learning_rate-0.01", seed) / "results.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **ended}))
    summary = summarise_sweep(read_sweep(workdir))
    rows = {(row["arm"], row["value"]): row for row in summary["against_first_value"]}
    wanted = np.array(ACCURACY["batch", 0.05]) - CHANCE
    assert rows["batch", 0.05]["differences"] == pytest.approx(wanted.tolist())
    # No spread at all: neither an interval of chance nor one of the gain.
    assert summary["gain"][0]["ci_t"] is summary["cells"][0]["test_accuracy"]["ci_t"] is None
    assert {row["arm"]: row["value"] for row in summary["chosen"]} == {"none": 0.05, "batch": 0.1}


def test_differences_stay_within_possible_values(workdir):
    """A change of a gain can be 200 points, a gain 100."""
    for norm, rate, test in (("none", 0.1, 1.0), ("batch", 0.1, 0.0)):
        for seed in (1, 3):
            path = run_path(workdir, f"{norm}-learning_rate-{rate}", seed) / "results.json"
            results = {**json.loads(path.read_text()), "test_accuracy": abs(test - seed / 10)}
            path.write_text(json.dumps(results))
    summary = summarise_sweep(read_sweep(workdir))
    low, high = summary["gain"][2]["ci_t"]
    assert low == -1.0
    assert high == 1.0
    assert -2.0 <= summary["interaction"]["ci_t"][0] < -1.0


@pytest.mark.parametrize("seed", [1, 2], ids=["finished", "diverged"])
def test_a_run_at_another_value_is_refused(workdir, seed):
    path = run_path(workdir, "none-learning_rate-0.1", seed) / "results.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.1}', '"learning_rate": 0.05}'))
    said = f"0.1/seed{seed}: .*: training.learning_rate is 0.05, must be 0.1"
    with pytest.raises(UserError, match=said):
        read_sweep(workdir)
