"""The summary: its figures are those of the runs, and it is plain, strict JSON."""

import json

import numpy as np
import pytest
from made_up import MADE

from cifar_jax.study.collect import read_study, run_path
from cifar_jax.study.measures import first_epoch
from cifar_jax.study.statistics import estimate
from cifar_jax.study.summary import compared_arms, epochs_saved, summarise


def test_is_strict_json(make_study):
    summary = summarise(read_study(make_study(n=200)))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_says_on_what_the_runs_were_made(make_study):
    workdir = make_study(seeds=(1, 2), n=200)
    path = run_path(workdir, "batch", 2) / "results.json"
    other = {"device": "gpu: another", "versions": {"python": "3.12", "jax": "0.10.2"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **other}))
    summary = summarise(read_study(workdir))
    assert summary["device"] == f"{MADE['device']}; gpu: another"
    assert summary["git_revision"] == MADE["git_revision"]
    assert summary["versions"] == {
        "python": "3.11.7; 3.12",
        "cifar_jax": "0.1.0; none",
        "jax": "0.10.2",
    }
    assert summary["epochs"] == 30


def test_figures_of_an_arm(make_study):
    study = read_study(make_study())
    arm = summarise(study)["per_arm"]["batch"]
    runs = study.runs["batch"]
    accuracy = [run.results.test_accuracy for run in runs]
    assert arm["test_accuracy"]["values"] == accuracy
    assert arm["test_accuracy"]["mean"] == pytest.approx(np.mean(accuracy), rel=1e-12)
    assert arm["test_accuracy"]["ci_t"] == list(estimate(accuracy).interval)
    assert arm["test_accuracy"]["n"] == 4
    assert arm["seeds"] == [1, 2, 3, 4]
    assert arm["val_accuracy"]["values"] == [r.results.history[-1].val_accuracy for r in runs]
    assert arm["class:cat"]["values"] == [r.results.per_class_accuracy["cat"] for r in runs]
    assert arm["num_params"] == 621_322
    assert arm["variance"]["total"] == pytest.approx(np.var(accuracy, ddof=1), rel=1e-9)
    assert sum(row["count"] for row in arm["calibration"]["bins"]) == 4 * 2000


def test_figures_of_the_pair_are_batch_minus_none(make_study):
    study = read_study(make_study())
    summary = summarise(study)
    paired = summary["paired"]
    assert paired["arms"] == ["none", "batch"]
    assert paired["seeds"] == [1, 2, 3, 4]
    differences = [
        b.results.test_accuracy - a.results.test_accuracy for a, b in study.pairs("none", "batch")
    ]
    assert min(differences) > 0
    assert paired["test_accuracy"]["differences"] == differences
    assert paired["test_accuracy"]["ci_t"] == list(estimate(differences).interval)
    assert paired["test_accuracy"]["p_sign_flip"] == 2 / 16
    assert paired["train_seconds"]["relative"]["mean_difference"] == pytest.approx(0.12, abs=0.02)
    for row, difference in zip(summary["mcnemar"], differences, strict=True):
        assert row["only_second"] - row["only_first"] == round(2000 * difference)
    assert [row["seed"] for row in summary["mcnemar"]] == [1, 2, 3, 4]


def test_convergence(make_study):
    study = read_study(make_study())
    convergence = summarise(study)["convergence"]
    for arm in study.arms:
        row = convergence[arm]
        curve = study.runs[arm][1].curve("val_accuracy")
        assert [r[1] for r in row["first_epoch"]] == [
            first_epoch(curve, t) for t in row["thresholds"]
        ]
        assert row["oscillation"]["val_loss"]["n"] == 4
    saved = epochs_saved(study.pairs("none", "batch"))
    assert convergence["epochs_saved"] == saved
    index = saved["thresholds"].index(0.6)
    # The made-up BatchNorm is 5.5 epochs ahead: 60 % after epoch 3 instead of 9.
    assert saved["saved"][index] == [6, 6, 6, 6]
    assert saved["statistics"][index]["mean"] == 6
    unreached = saved["thresholds"].index(0.8)
    assert saved["saved"][unreached] == [None] * 4
    assert saved["statistics"][unreached]["mean"] is None


def test_one_seed_has_no_intervals_and_says_why(make_study):
    summary = summarise(read_study(make_study(seeds=(7,), n=200)))
    assert summary["reason_no_intervals"].startswith("Only one seed of none and of batch")
    for row in (summary["per_arm"]["none"]["test_accuracy"], summary["paired"]["test_accuracy"]):
        assert row["n"] == 1
        assert row["std"] is row["ci_t"] is row["ci_bootstrap"] is None
    assert summary["paired"]["test_accuracy"]["p_sign_flip"] is None
    assert summary["paired"]["test_accuracy"]["seeds_for_power_80"] is None
    assert set(summary["per_arm"]["none"]["variance"].values()) == {None}
    assert {row["verdict"] for row in summary["claims"]} == {"undecided"}


def test_several_seeds_need_no_reason(make_study):
    assert summarise(read_study(make_study(n=200)))["reason_no_intervals"] is None


def test_seeds_that_only_one_arm_has_are_not_paired(make_study):
    workdir = make_study(seeds=(1, 2, 3), n=200)
    (run_path(workdir, "none", 2) / "results.json").unlink()
    (run_path(workdir, "batch", 3) / "results.json").unlink()
    summary = summarise(read_study(workdir))
    assert summary["missing"] == [["none", 2], ["batch", 3]]
    assert summary["per_arm"]["none"]["seeds"] == [1, 3]
    assert summary["paired"]["seeds"] == [1]
    assert summary["reason_no_intervals"].startswith("Only one seed has finished in both arms")


def test_an_arm_without_a_run(make_study):
    workdir = make_study(seeds=(1, 2), n=200)
    for seed in (1, 2):
        (run_path(workdir, "none", seed) / "results.json").unlink()
    summary = summarise(read_study(workdir))
    assert summary["arms"] == ["batch"]
    assert summary["missing"] == [["none", 1], ["none", 2]]
    assert summary["paired"] == {}
    assert summary["mcnemar"] == summary["claims"] == []
    assert summary["convergence"]["epochs_saved"] == {}


@pytest.mark.parametrize(
    ("arms", "compared"),
    [
        (("batch", "none"), ("none", "batch")),
        (("layer", "batch", "none"), ("none", "batch")),
        (("layer", "batch", "group"), ("layer", "batch")),
        (("batch",), None),
    ],
)
def test_which_arms_are_compared(make_study, arms, compared):
    study = read_study(make_study(arms=arms, seeds=(1, 2), n=200))
    assert compared_arms(study) == compared
    assert bool(summarise(study)["claims"]) == (compared == ("none", "batch"))
