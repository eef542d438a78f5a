"""Better and equivalent, of any study: against t tests of scipy's."""

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from scipy import stats

from cifar_jax.errors import UserError
from cifar_jax.study.claims import (
    Better,
    Claim,
    against_control,
    better,
    check_claims,
    equivalent,
)
from cifar_jax.study.collect import read_study, run_path
from cifar_jax.study.statistics import estimate
from cifar_jax.study.verdicts import claim_rows

SPREAD = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])  # standard deviation 0.158, standard error 0.0707
SEEDS = (1, 2, 3, 4, 5)
ARMS = ("none", "batch", "layer", "group")


@pytest.fixture
def study_of(make_study):
    """Write a study whose arms minus the first have these test accuracies in points, by seed."""

    def make(*differences, **fields):
        arms = ARMS[: len(differences) + 1]
        workdir = make_study(arms=arms, seeds=SEEDS, n=1000, epochs=2)
        for arm, row in zip(arms, [np.zeros(5), *differences], strict=True):
            for seed, points in zip(SEEDS, row, strict=True):
                path = run_path(workdir, arm, seed) / "results.json"
                changed = {"test_accuracy": 0.75 + points / 100}
                if arm != "none":
                    changed |= {name: values[seed - 1] for name, values in fields.items()}
                path.write_text(json.dumps(json.loads(path.read_text()) | changed))
        return read_study(workdir)

    return make


def one_sided(values, bound):
    """P-value of "the mean is at least the bound", and of "at most"."""
    return [
        stats.ttest_1samp(values, bound, alternative=side).pvalue for side in ("less", "greater")
    ]


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.14, 0.16, 0.25, 0.35, 0.5, 1.0])
def test_equivalent_is_two_one_sided_tests(study_of, mean):
    values = mean + SPREAD
    (row,) = claim_rows(study_of(values), [equivalent("batch", "none", within=0.3)])
    p = max(one_sided(values, 0.3)[0], one_sided(values, -0.3)[1])
    low, high = stats.t.interval(0.95, 4, mean, stats.sem(values))
    outside = low > 0.3 or high < -0.3
    wanted = "supported" if p < 0.05 else "not supported" if outside else "undecided"
    assert row["verdict"] == wanted
    assert row["interval"] == pytest.approx((low, high), abs=1e-9)
    assert "Schuirmann 1987" in row["rule"]
    if wanted == "supported":
        assert row["p_holm"] == pytest.approx(p, rel=1e-6)
        low, high = stats.t.interval(0.90, 4, mean, stats.sem(values))
        assert f"90 % interval {low:+.2f} to {high:+.2f}" in row["measured"]
        assert max(-low, high) < 0.3


@pytest.mark.parametrize(
    ("mean", "by", "verdict"),
    [
        (0.3, 0.0, "supported"),
        (0.3, 0.05, "supported"),
        (0.3, 0.25, "undecided"),
        (0.3, 0.6, "not supported"),  # better, but not by 0.6
        (-0.3, 0.0, "not supported"),
        (0.1, 0.0, "undecided"),
    ],
)
def test_better_by_an_amount(study_of, mean, by, verdict):
    (row,) = claim_rows(study_of(mean + SPREAD), [better("batch", "none", by=by)])
    assert row["verdict"] == verdict
    p = stats.ttest_1samp(mean + SPREAD, by).pvalue
    assert row["p_holm"] == pytest.approx(p, rel=1e-6)
    assert (verdict != "undecided") == (p < 0.05)


def test_lower_loss_and_less_time_are_better(study_of):
    study = study_of(SPREAD, train_seconds=50 + SPREAD)
    base = np.array([run.results.train_seconds for run in study.runs["none"]])
    saved, slower = (better("batch", "none", by=by, metric="train_seconds") for by in (40.0, 60.0))
    study = dataclasses.replace(study, labels={"batch": "Mish", "none": "ReLU"})
    rows = claim_rows(study, [saved, slower])
    assert [row["verdict"] for row in rows] == ["supported", "not supported"]
    assert rows[0]["claim"] == "Mish has a lower training time than ReLU by more than 40 %"
    assert rows[0]["measured"].startswith(f"{np.mean(100 * ((50 + SPREAD) / base - 1)):+.1f} %")
    (loss,) = claim_rows(study, [better("batch", "none", metric="test_loss")])
    assert loss["verdict"] == "supported"
    assert loss["interval"][1] < 0


def test_several_comparisons_are_adjusted_by_holm(study_of):
    """p = 0.013 each: one alone is shown, none of four."""
    se = stats.sem(SPREAD)
    shift = stats.t.isf(0.013 / 2, 4) * se
    study = study_of(shift + SPREAD, shift + SPREAD, SPREAD - shift)
    claims = [*against_control(("none", "batch", "layer", "group"), "none")]
    alone = [claim_rows(study, [claim])[0]["verdict"] for claim in claims]
    assert alone == ["supported", "supported", "not supported"]
    rows = claim_rows(study, claims)
    assert [row["p_holm"] for row in rows] == pytest.approx([0.039] * 3)
    assert [row["verdict"] for row in rows] == alone
    rows = claim_rows(study, [*claims, equivalent("layer", "batch", within=0.1)])
    assert [row["p_holm"] for row in rows[:3]] == pytest.approx([0.052] * 3)
    assert {row["verdict"] for row in rows} == {"undecided"}
    assert "Holm's method adjusts p for this study's 4 comparisons" in rows[0]["rule"]
    assert "adjusted p = 0.052" in rows[0]["measured"]
    # The interval is the pair's own.
    assert rows[0]["interval"][0] > 0


def test_an_equivalence_takes_its_place_among_the_comparisons(study_of):
    study = study_of(SPREAD, 0.3 + SPREAD)
    claims = [equivalent("batch", "none", within=0.3), better("layer", "none")]
    own = [max(one_sided(SPREAD, 0.3)[0], one_sided(SPREAD, -0.3)[1])]
    own.append(stats.ttest_1samp(0.3 + SPREAD, 0).pvalue)
    rows = claim_rows(study, claims)
    assert own[0] < own[1]
    wanted = [2 * own[0], max(own[1], 2 * own[0])]
    assert [row["p_holm"] for row in rows] == pytest.approx(wanted, rel=1e-6)


def test_p_and_interval_agree_where_the_images_error_counts():
    """Few test images: the interval has two errors, and so has the test."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        values, images = rng.normal(0.05, 0.02, 4), rng.choice([-1.0, 0.0, 1.0], 200)
        within = float(rng.uniform(0.05, 0.4))
        found = estimate(values, images)
        low, high = estimate(values, images, level=0.90).interval
        assert found.rule == "seeds and test images"
        assert (found.equivalence_p(within) < 0.05) == (low > -within and high < within)
        ends = found.interval
        assert found.p_of(ends[0]) == pytest.approx(0.05, rel=1e-6)
        assert (found.p_of(within) < 0.05) == (not ends[0] <= within <= ends[1])


def test_one_seed_is_undecided(make_study):
    study = read_study(make_study(seeds=(1,), n=1000, epochs=2))
    rows = claim_rows(study, [better("batch", "none"), equivalent("batch", "none", within=90)])
    assert [row["verdict"] for row in rows] == ["undecided"] * 2
    assert [row["p_holm"] for row in rows] == [None] * 2


def test_claims_are_plain_data():
    claims = [
        better("a", "b", by=0.5, text="A helps"),
        equivalent("a", "b", within=0.1, metric="test_loss"),
    ]
    text = msgspec.json.encode(claims)
    assert msgspec.json.decode(text, type=list[Claim]) == claims
    assert json.loads(text)[1] == {
        "kind": "equivalent",
        "arm": "a",
        "than": "b",
        "within": 0.1,
        "metric": "test_loss",
    }


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: better("a", "b", metric="acc"), "metric='acc' is not known; allowed: test_acc"),
        (lambda: better("a", "a"), "compares 'a' with itself"),
        (lambda: better("a", "b", by=-0.1), "by=-0.1 is not a number of points; allowed: 0 to 100"),
        (lambda: better("a", "b", by="1"), "by='1' is not a number of points"),
        (lambda: equivalent("a", "b", within=float("nan")), "within=nan is not a number"),
        (lambda: equivalent("a", "b", within=0), "allowed: more than 0"),
        (lambda: check_claims([better("a", "c")], ["a", "b"]), "'c' is not an arm"),
        (lambda: check_claims(["a"], ["a", "b"]), "'a' is not a claim"),
    ],
)
def test_a_wrong_claim_is_one_line(build, said):
    with pytest.raises(UserError, match=r"\A.*\Z") as found:
        build()
    assert said in str(found.value)


def test_without_claims_every_arm_is_compared_with_the_control():
    assert against_control(("a", "b", "c"), "b") == (
        Better(arm="a", than="b"),
        Better(arm="c", than="b"),
    )
