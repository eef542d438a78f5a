"""A study of many runs: memory does not grow with logits, nor the page with seeds."""

import dataclasses
import json
import re
import tracemalloc

import pytest
from made_up import changed

from cifar_jax.report import page, study_plots
from cifar_jax.study.collect import read_study, run_path
from cifar_jax.study.statistics import bootstrap_interval, sign_flip_p
from cifar_jax.study.summary import summarise


def peak_of_report(workdir):
    """The largest traced memory, in bytes, while a study is read and summarised."""
    tracemalloc.start()
    try:
        summarise(read_study(workdir))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_logits_do_not_stay_in_memory(make_study, monkeypatch):
    monkeypatch.setattr("cifar_jax.study.collect.cpu_count", lambda: 1)
    images, runs = 20_000, 16
    workdir = make_study(seeds=tuple(range(runs // 2)), n=images, epochs=4)
    more = peak_of_report(workdir)
    plan = json.loads((workdir / "study.json").read_text())
    (workdir / "study.json").write_text(json.dumps({**plan, "seeds": [0, 1]}))
    a_run = (more - peak_of_report(workdir)) / (runs - 4)
    logits = images * 5 * 4
    kept = images * (8 + 2)  # of each image: its loss, and its predicted class
    assert kept < a_run < 0.75 * logits


@pytest.fixture
def report(make_study, tmp_path, monkeypatch):
    """Write the report of a study with any number of seeds: copies of six small runs."""
    few = read_study(make_study(seeds=(0, 1, 2), n=60, epochs=3))
    monkeypatch.setattr(page, "study_figures", lambda *_: [])

    def write(seeds):
        runs = {
            arm: [changed(row[seed % 3], seed=seed) for seed in range(seeds)]
            for arm, row in few.runs.items()
        }
        lost = tuple(("none", seed) for seed in range(seeds, 2 * seeds))
        study = dataclasses.replace(few, runs=runs, seeds=tuple(range(2 * seeds)), missing=lost)
        summary = summarise(study)
        page.write_report(study, summary, None)
        return study, summary, (tmp_path / "report.md").read_text().replace("\\", "")

    return write


def test_the_page_of_many_seeds_counts_them(report):
    study, summary, text = report(201)
    assert "Missing runs, which no number includes: 201 runs; runs.csv lists them." in text
    assert "402 seeds from 0 to 401" in text
    answers = re.findall(r"^\| (?:more right with .*|p at least 0.05) \| (\d+) \|$", text, re.M)
    assert sum(map(int, answers)) == 201
    (line,) = [line for line in text.splitlines() if line.startswith("| first epoch with 50 %")]
    median = sorted(summary["convergence"]["batch"]["first_epoch"][0])[100]
    assert f"median {median} (" in line
    assert (study.workdir / "runs.csv").read_text().count("\n") == 1 + 4 * 201
    assert len(json.loads((study.workdir / "summary.json").read_text())["mcnemar"]) == 201
    longer = report(402)[2]
    assert len(longer) == pytest.approx(len(text), rel=0.01)


def test_200_seeds_are_listed_and_resampled(report):
    text = report(100)[2]
    assert f"| seeds | {', '.join(map(str, range(200)))} |" in text
    assert "baseline seed 100, baseline seed 101, " in text
    assert "| p at least 0.05 |" not in text
    for resample in (bootstrap_interval, sign_flip_p):
        assert resample(range(200)) is not None
        assert resample(range(201)) is None


def test_figures_of_many_seeds_have_no_mark_for_each(report):
    study, summary, _ = report(201)
    (axes,) = study_plots.accuracy_over_time(study, "t").axes
    assert len(axes.lines) == 2
    above = study_plots.differences(study, summary["paired"], (), False, "t").axes[0]
    assert len(above.lines) == 0
    assert len(above.patches) == 2 * 40


def test_a_study_of_damaged_runs_says_what_is_wrong(make_study):
    workdir = make_study(arms=("none",), seeds=(1,), n=50)
    path = run_path(workdir, "none", 1) / "results.json"
    path.write_text("[]")
    with pytest.raises(Exception, match=f"holds no finished run of its study; {path}: cannot be"):
        read_study(workdir)
