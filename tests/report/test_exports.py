"""The tables beside a report: readable by other programs, and with the summary's numbers."""

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from fake_study import write_study
from scipy import stats

from cifar_jax.report.exports import Block, digits_of, table_tex, table_text
from cifar_jax.report.page import write_report
from cifar_jax.report.sweep_page import write_sweep_report
from cifar_jax.study.collect import read_study, read_sweep
from cifar_jax.study.grid import Sweep
from cifar_jax.study.score_files import read_scores
from cifar_jax.study.scores import Row, compare_scores
from cifar_jax.study.summary import summarise
from cifar_jax.study.sweep import summarise_sweep

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three arms, four seeds, 1,200 test images; one run is missing, one diverged."""
    workdir = tmp_path_factory.mktemp("made")
    write_study(
        workdir,
        arms=("none", "batch", "layer"),
        seeds=(1, 2, 3, 4),
        missing=[("layer", 4)],
        diverged=[("none", 3)],
        n_test=1200,
        epochs=2,
    )
    study = read_study(workdir)
    summary = summarise(study)
    return study, summary, write_report(study, summary, None, lambda line: None)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_runs_has_every_run_once(made):
    study, _, written = made
    path = study.workdir / "runs.csv"
    assert path in written
    rows = rows_of(path)
    assert [(row["arm"], row["seed"]) for row in rows] == [
        (arm, str(seed)) for arm in ("none", "batch", "layer") for seed in (1, 2, 3, 4)
    ]
    status = {(row["arm"], row["seed"]): row["status"] for row in rows}
    assert status["layer", "4"] == "missing"
    assert status["none", "3"] == "diverged"
    run = study.runs["batch"][0]
    (row,) = (row for row in rows if (row["arm"], row["seed"]) == ("batch", "1"))
    assert float(row["test_accuracy"]) == run.tested.test_accuracy
    assert float(row["val_accuracy"]) == run.curve("val_accuracy")[-1]
    assert int(row["num_params"]) == run.results.num_params


def test_runs_can_be_compared_again(made):
    """`compare runs.csv` gives the study's differences: it has at least 1,000 test images."""
    study, summary, _ = made
    found = compare_scores(read_scores(study.workdir / "runs.csv"), "none")
    assert "1 row of none without test_accuracy, 1 row of layer" in found["notes"][1]
    for ours, again in zip(summary["against_first"], found["against_control"], strict=True):
        assert ours["arms"] == again["arms"]
        np.testing.assert_allclose(ours["differences"], again["differences"], rtol=1e-12)
        np.testing.assert_allclose(ours["ci_t"], again["ci_t"], rtol=1e-9)


def test_tables_have_the_numbers(made):
    study = made[0]
    accuracy = {arm: [r.tested.test_accuracy for r in runs] for arm, runs in study.runs.items()}
    paired = np.delete(accuracy["batch"], 2)  # the baseline's seed 3 diverged
    pairs = [100 * (b - a) for a, b in zip(accuracy["none"], paired, strict=True)]
    low, high = stats.ttest_1samp(pairs, 0).confidence_interval()
    markdown = (study.workdir / "table.md").read_text()
    cells = [cell.strip() for cell in markdown.splitlines()[3].strip("|").split("|")]
    assert cells == [
        "BatchNorm",
        "4",
        f"{100 * np.mean(accuracy['batch']):.2f}",
        f"{100 * np.std(accuracy['batch'], ddof=1):.2f}",
        f"{np.mean(pairs):+.2f}",
        f"{low:+.2f} to {high:+.2f}",
    ]
    tex = (study.workdir / "table.tex").read_text()
    assert f"${np.mean(pairs):+.2f}$ & ${low:+.2f}$ to ${high:+.2f}$ \\\\" in tex


@pytest.mark.parametrize("arms", [("none", "batch"), ("batch",)])
def test_a_sweep_has_a_row_for_each_arm_and_value(tmp_path, arms):
    sweep = Sweep("training.learning_rate", (0.01, 0.1))
    write_study(tmp_path, arms=arms, sweep=sweep, seeds=(1, 2), epochs=2)
    study = read_sweep(tmp_path)
    write_sweep_report(study, summarise_sweep(study), None, lambda line: None)
    rows = rows_of(tmp_path / "runs.csv")
    runs = 2 * len(arms)
    values = [row["training.learning_rate"] for row in rows]
    assert values == ["0.01"] * runs + ["0.1"] * runs
    lines = [
        line for line in (tmp_path / "table.md").read_text().splitlines() if "rate 0.1" in line
    ]
    assert len(lines) == len(arms)
    assert re.search(r"\| [+-]\d", lines[-1])


NASTY = Row("a_b & 50% \\ $x$ <|~", 3, 0.5, 0.1, -0.02, (-0.03, 0.01), paired=False)


def test_names_are_escaped():
    block = Block("odd_name", "A note.", [NASTY, Row("other", 1, 0.4, None)])
    tex = table_tex([block, block])
    line = next(line for line in tex.splitlines() if line.startswith("a"))
    assert line.startswith(
        r"a\_b \& 50\% \textbackslash{} \$x\$ \textless{}\textbar{}\textasciitilde{} & $3$ &"
    )
    assert r"\multicolumn{5}{c}{odd\_name}" in tex
    assert "$-2.00$ & $-3.00$ to $+1.00$ (unpaired)" in line
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table_text([block]).splitlines()[:4]}
    assert widths == {7}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_latex_accepts_it(tmp_path):
    block = Block("odd_name", "A note.", [NASTY, Row("other", 1, 0.4, None)])
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}"
    (tmp_path / "t.tex").write_text(f"{head}\n{table_tex([block] * 2)}\n\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize(("std", "digits"), [(0.0024, 4), (0.55, 2), (12.0, 0), (4e3, 0)])
def test_digits_show_two_of_the_deviation(std, digits):
    assert digits_of([Row("a", 3, 1.0, std), Row("b", 3, 2.0, std)]) == digits
