"""The report of a sweep, and of many norms: what it says, and that its figures show it."""

import json
import re

import numpy as np
import pytest
from fake_study import write_study
from made_up import changed

from cifar_jax.report import (
    headline,
    model_card,
    number_tables,
    page,
    study_figures,
    sweep_figures,
    sweep_page,
    sweep_tables,
    tables,
)
from cifar_jax.report.text import NONE
from cifar_jax.runner.results import Origin
from cifar_jax.study.collect import read_study, read_sweep
from cifar_jax.study.grid import Sweep
from cifar_jax.study.summary import summarise
from cifar_jax.study.sweep import summarise_sweep

pytestmark = pytest.mark.usefixtures("blank_figures")

RATES = Sweep("training.learning_rate", (0.01, 0.1))


def report(workdir, sweep=RATES, **options):
    images = write_study(workdir, sweep=sweep, epochs=4, **options)
    study = read_sweep(workdir)
    summary = summarise_sweep(study)
    return study, summary, sweep_page.write_sweep_report(study, summary, images), images


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """A sweep in which the baseline diverges once, and a run is missing."""
    return report(
        tmp_path_factory.mktemp("lost"),
        diverged=[("none-learning_rate-0.1", 43)],
        missing=[("batch-learning_rate-0.01", 44)],
    )


def build(made, stem):
    """A figure, drawn."""
    study, summary, _, images = made
    (found,) = (f for f in sweep_figures.sweep_figures(study, summary, images) if f.stem == stem)
    assert found.build
    return found.build()


def test_everything_is_written(lost):
    study, _, written, _ = lost
    names = {str(path.relative_to(study.workdir)) for path in written}
    assert {"report.html", "report.md", "summary.json"} <= names
    assert {
        f"{arm}-learning_rate-{rate}/model_card.md"
        for arm in ("none", "batch")
        for rate in (0.01, 0.1)
    } <= names
    assert len([name for name in names if name.endswith(".svg")]) == 6
    card = (study.workdir / "batch-learning_rate-0.1" / "model_card.md").read_text()
    assert "42, 43, 44" in card


def test_page_names_what_diverged_and_how_it_counts(lost):
    study = lost[0]
    text = " ".join(re.sub("<[^>]+>", " ", (study.workdir / "report.html").read_text()).split())
    assert "Diverged: baseline at learning rate 0.1: 1 of 3 seeds." in text
    assert "counts as chance, 10.0 %" in text
    assert "Missing runs, which no number includes: BatchNorm at 0.01 seed 44." in text
    assert "(1 of 3 diverged)" in text
    toml = (study.workdir / "report.md").read_text()
    assert 'sweep = "training.learning_rate=0.01,0.1"' in toml


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([0.1, 0.2], "the gain is larger at 0.1, a change of +15.00 points"),
        ([-0.1, 0.2], "it is undecided whether that depends on learning rate"),
        (None, "the change is +15.00 points, and one seed gives no interval"),
    ],
)
def test_headline_says_what_the_interval_allows(lost, ends, said):
    study, summary, *_ = lost
    reason = None if ends else "one seed gives no interval"
    change = {**summary["interaction"], "mean_difference": 0.15, "ci_t": ends}
    change["no_interval"] = reason
    assert said in sweep_page.headline(study, {**summary, "interaction": change})


def test_accuracy_figure_shows_means_seeds_and_divergence(lost):
    figure = build(lost, "03_accuracy_by_setting")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    cells = [c for c in lost[1]["cells"] if c["arm"] == "batch"]
    means = [100 * cell["test_accuracy"]["mean"] for cell in cells]
    assert lines["BatchNorm"].get_ydata() == pytest.approx(means)
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [tuple(line.get_ydata()) for line in crosses] == [(10.0,)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
    assert {"chance", sweep_figures.DIVERGED} <= set(lines)


def test_gain_figure_shows_the_paired_differences(lost):
    figure = build(lost, "04_gain_by_setting")
    (axes,) = figure.axes
    means = [100 * row["mean_difference"] for row in lost[1]["gain"]]
    assert any(
        np.allclose(line.get_ydata(), means) for line in axes.lines if len(line.get_ydata()) == 2
    )


@pytest.mark.parametrize(
    ("values", "positions", "numbers"),
    [
        ((0.01, 0.1), [-2, -1], True),
        ((8, 64, 512), np.log10([8, 64, 512]), True),
        ((0.8, 0.9), [0.8, 0.9], True),
        ((0.0, 1e-4, 1e-2), [0, 1, 2], True),
        (("cnn", "other"), [0, 1], False),
        ((True, False), [0, 1], False),
    ],
)
def test_scale(values, positions, numbers):
    found = sweep_figures.scale(values)
    assert found.positions == pytest.approx(positions)
    assert found.numbers is numbers


@pytest.mark.parametrize(
    ("sweep", "options"),
    [
        (Sweep("model.name", ("cnn", "resnet20")), {"seeds": (1,)}),
        (RATES, {"arms": ("batch",)}),
        (Sweep("training.momentum", (0.9,)), {"arms": ("none", "batch", "group")}),
    ],
)
def test_one_norm_one_value_one_seed_names_instead_of_numbers(tmp_path, sweep, options):
    study, summary, _, images = report(tmp_path, sweep, **options)
    assert (tmp_path / "report.html").is_file()
    reasons = [f.reason for f in sweep_figures.sweep_figures(study, summary, images)]
    assert any(reasons) == (len(study.first.arms) == 1)
    json.dumps(summary, allow_nan=False)


def test_one_norm_at_two_values_is_answered_by_their_difference(tmp_path):
    """As of a network from scratch and from another's parameters; the page says which."""
    sweep = Sweep("transfer.init_from", ("none", "runs/a"))
    study, summary, *_ = report(tmp_path, sweep, arms=("batch",))
    (row,) = summary["against_first_value"]
    text = sweep_page.headline(study, summary)
    assert f"at init from runs/a minus none is {100 * row['mean_difference']:+.2f} points" in text
    assert "BatchNorm: runs/a minus none" in (tmp_path / "report.md").read_text()
    origin = Origin(
        source="runs/a after epoch 3",
        digest="c0ffee" * 9,
        tensors_taken=1,
        parameters_taken=1,
        left=(),
    )
    found = study.studies[1].runs
    found["batch"] = [changed(run, init_from=origin) for run in found["batch"]]
    rows = dict(tables.protocol_table(study.studies[1], summary["per_value"][1] | summary).rows)
    assert rows["initial values"] == "runs/a after epoch 3, digest c0ffeec0ffee"


def test_many_norms_are_all_compared_with_the_first(tmp_path):
    images = write_study(tmp_path, arms=("none", "batch", "layer", "group"), epochs=4)
    study = read_study(tmp_path)
    summary = summarise(study)
    page.write_report(study, summary, images)
    others = summary["against_first"]
    assert [row["arms"] for row in others] == [["none", a] for a in ("batch", "layer", "group")]
    assert all(row["p_t_holm"] >= row["p_t"] for row in others)
    assert "Of 3 arms compared with baseline" in headline.headline(study, summary)
    assert len(number_tables.against_first_table(summary).rows) == 3
    assert "only about BatchNorm and the baseline" in tables.claims_table(study, summary).note
    (all_arms,) = (
        f for f in study_figures.study_figures(study, summary, images) if f.stem == "13_all_arms"
    )
    left, _ = all_arms.build().axes
    assert [t.get_text() for t in left.get_yticklabels()] == [
        "baseline",
        "BatchNorm",
        "LayerNorm",
        "GroupNorm",
    ]


def test_claims_and_published_figures_are_of_the_reports_network_alone(tmp_path):
    write_study(tmp_path)
    study = read_study(tmp_path)
    for arm, runs in study.runs.items():
        config = {**runs[0].results.config, "model": {"name": "resnet20", "norm": arm}}
        study.runs[arm] = [changed(run, model="resnet20", config=config) for run in runs]
    summary = summarise(study)
    assert summary["claims"] == []
    assert "does not decide them" in tables.claims_table(study, summary).note
    table = tables.main_table(study, summary)
    assert {row[-1] for row in table.rows} == {NONE}
    assert "is not the published one" in table.note


def test_a_protocol_that_is_not_the_published_one_is_named(tmp_path):
    write_study(tmp_path)
    for path in tmp_path.glob("*/seed*/results.json"):
        results = json.loads(path.read_text())
        results["config"]["training"]["learning_rate"] = 0.05
        path.write_text(json.dumps(results))
    plan = json.loads((tmp_path / "study.json").read_text())
    plan["config"]["training"]["learning_rate"] = 0.05
    (tmp_path / "study.json").write_text(json.dumps(plan))
    study = read_study(tmp_path)
    note = tables.main_table(study, summarise(study)).note
    assert "not the published one: learning rate 0.05 instead of 0.01." in note


def read_only(workdir, sweep, **options):
    """A sweep and its summary, without a page."""
    write_study(workdir, sweep=sweep, **{"epochs": 2, **options})
    study = read_sweep(workdir)
    return study, summarise_sweep(study)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """One norm with four splits, on which its made-up test accuracy does not depend."""
    workdir = tmp_path_factory.mktemp("splits")
    return read_only(workdir, Sweep("data.split_seed", (1, 2, 3, 4)), arms=("none",))


def test_a_sweep_of_one_arm_answers_with_a_choice_and_its_test(splits):
    study, summary = splits
    (row,) = summary["chosen"]
    found = sweep_page.headline(study, summary)
    assert f"of 4 values the validation accuracy chooses split seed {row['value']}" in found
    assert "(it ties with 2, 3 and 4)" in found
    assert f"test accuracy there is {100 * row['test_accuracy']['mean']:.2f} %" in found
    assert "highest" not in found
    (cells,) = sweep_tables.chosen_table(study.sweep, summary).rows
    assert cells[:4] == ("baseline", "1", "4", "2, 3, 4")


def test_a_choice_says_what_holm_says(splits):
    study, summary = splits
    (row,) = summary["chosen"]
    against = {
        "mean_difference": 0.02,
        "ci_t": [0.01, 0.03],
        "p_t_holm": 0.06,
        "no_interval": None,
    }
    row = {**row, "value": 3, "tied": [4], "against_first_value": against}
    labels = {"none": "baseline"}
    found = sweep_page.choice_text(study.sweep, row, labels)
    assert "chooses split seed 3 (it ties with 4) for baseline" in found
    assert (
        "the difference to 1 is +2.00 points (95 % interval +1.00 to +3.00), p 0.060 after" in found
    )
    assert found.endswith(": undecided")
    clear = {**row, "against_first_value": {**against, "p_t_holm": 0.00001}}
    assert sweep_page.choice_text(study.sweep, clear, labels).endswith(
        "p < 0.0001 after Holm's correction for 3 differences: higher"
    )
    same = {**against, "ci_t": None, "p_t_holm": None, "no_interval": "all seeds agree"}
    assert sweep_page.choice_text(
        study.sweep, {**row, "against_first_value": same}, labels
    ).endswith("+2.00 points: undecided (all seeds agree)")


def test_one_norm_at_two_values_is_undecided_where_its_interval_includes_zero(tmp_path):
    study, summary = read_only(tmp_path, RATES, arms=("batch",))
    (row,) = summary["against_first_value"]
    changed = {**row, "mean_difference": 0.1515, "ci_t": [-0.02, 0.323]}
    text = sweep_page.headline(study, {**summary, "against_first_value": [changed]})
    assert "(undecided: the interval includes zero)" in text


def test_one_epoch_is_singular(tmp_path):
    study, summary = read_only(tmp_path, RATES, epochs=1, seeds=(42,))
    one, row = study.first, {**summary, **summary["per_value"][0]}
    notes = [
        sweep_tables.main_table(study, summary).note,
        tables.main_table(one, row).note,
        str(tables.protocol_table(one, row).rows),
        model_card.write_model_card(one, row, "batch").read_text(),
    ]
    for text in notes:
        assert "1 epoch" in text
        assert "1 epochs" not in text
        assert "1 seeds" not in text
