"""The command `analyse`: what it writes, keeps, repeats and refuses."""

import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cifar_jax.analysis import measure
from cifar_jax.analysis.part import all_parts, load_part
from cifar_jax.analysis.record import read_analysis
from cifar_jax.analysis.sections import make_sections
from cifar_jax.data.dataset import load
from cifar_jax.main import main
from cifar_jax.names import PARTS, PARTS_WITH_FLAGS
from cifar_jax.report.drawing import render
from cifar_jax.storage import write_sealed
from cifar_jax.study.collect import read_study

pytestmark = pytest.mark.usefixtures("cache")
MEASURED = tuple(part for part in PARTS if part not in PARTS_WITH_FLAGS)


def read(directory: Path):
    return json.loads((directory / "analysis.json").read_text())


def page(directory: Path) -> str:
    return html.unescape((directory / "report.html").read_text())


def refused(capsys, argv: list[str], said: str) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("cifar_jax: error: ")
    assert error.count("\n") == 1


def test_every_run_is_measured_by_every_part(analysed):
    parts = read(analysed.directory)["parts"]
    assert tuple(parts) == MEASURED
    cells = [[arm, seed] for arm in ("narrow", "wide") for seed in (3, 4)]
    for name, part in parts.items():
        assert [[run["arm"], run["seed"]] for run in part["runs"]] == cells, name
        assert "missing" not in part, name


def test_the_page_has_every_section_and_its_figures(analysed):
    text = page(analysed.directory)
    for part in map(load_part, MEASURED):
        assert re.search(f"<h2[^>]*>{re.escape(part.title)}<", text)
    assert "is missing" not in text
    numbers = [int(n) for n in re.findall(r'<figure id="figure-(\d+)"', text)]
    assert numbers == list(range(1, len(numbers) + 1))
    markdown = (analysed.directory / "report.md").read_text()
    for figure in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (analysed.directory / figure).is_file()


def test_every_figure_can_be_drawn(analysed):
    study = read_study(analysed.directory)
    found = read_analysis(analysed.directory, study.dataset.fingerprint)
    images = load(str(analysed.images))
    figures = [f for of in make_sections(found, study, images).sections for f in of.figures]
    assert len(figures) >= 6
    for figure in figures:
        content = render(figure.build).png()
        assert content.startswith(b"\x89PNG")


def test_numbers_have_means_and_paired_differences(analysed):
    part = read(analysed.directory)["parts"]["calibration"]
    (row,) = [row for row in part["numbers"] if row["number"] == "temperature"]
    of = {(run["arm"], run["seed"]): run["record"]["temperature"] for run in part["runs"]}
    assert row["control"] == "narrow"
    mean = np.mean([of["wide", 3], of["wide", 4]])
    assert row["per_arm"]["wide"]["mean"] == pytest.approx(mean)
    pairs = [of["wide", seed] - of["narrow", seed] for seed in (3, 4)]
    assert row["paired"]["wide"]["differences"] == pytest.approx(pairs)


def test_a_second_call_measures_nothing_again(analysed, tmp_path, monkeypatch, blank_figures):
    copy = analysed.copy(tmp_path / "study")
    before = read(copy.directory)["parts"]
    monkeypatch.setattr(measure, "_measure", lambda *_: pytest.fail("measured again"))
    assert copy.analyse() == 0
    assert read(copy.directory)["parts"] == before


def test_only_names_the_parts(trained, tmp_path, blank_figures):
    copy = trained.copy(tmp_path / "study")
    assert copy.analyse("--only", "calibration") == 0
    assert list(read(copy.directory)["parts"]) == ["calibration"]


def test_report_needs_neither_code_nor_images(analysed, tmp_path, blank_figures):
    copy = analysed.copy(tmp_path / "study")
    (copy.directory / "experiment.py").unlink()
    argv = ["report", "--workdir", str(copy.directory), "--dataset", str(tmp_path / "none")]
    assert main(argv) == 0
    sections = re.split("<h2[^>]*>", page(copy.directory))
    of = [text for text in sections if text.startswith(tuple(part.title for part in all_parts()))]
    assert len(of) == len(MEASURED)


def test_an_interrupted_analysis_keeps_what_it_measured(
    trained, tmp_path, monkeypatch, blank_figures
):
    copy = trained.copy(tmp_path / "study")
    real, calls = measure._measure, []

    def interrupted(part, run, record):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append((part.name, run.run.arm, run.run.seed))
        return real(part, run, record)

    with monkeypatch.context() as patch:
        patch.setattr(measure, "_measure", interrupted)
        assert copy.analyse("--only", "calibration") == 130
    kept = read(copy.directory)["parts"]["calibration"]["runs"]
    assert [("calibration", run["arm"], run["seed"]) for run in kept] == calls

    def counted(part, run, record):
        calls.append((part.name, run.run.arm, run.run.seed))
        return real(part, run, record)

    monkeypatch.setattr(measure, "_measure", counted)
    assert copy.analyse("--only", "calibration") == 0
    assert calls[3:] == [("calibration", "wide", 4)]


def test_a_run_that_changed_is_measured_again(analysed, tmp_path, blank_figures):
    copy = analysed.copy(tmp_path / "study")
    known = read(copy.directory)
    run = known["parts"]["calibration"]["runs"][1]
    run["predictions"] = "0" * 64
    run["record"]["temperature"] = 7.0
    write_sealed(copy.directory / "analysis.json", known)
    assert copy.analyse("--only", "calibration") == 0
    again = read(copy.directory)["parts"]["calibration"]["runs"][1]
    assert again["record"]["temperature"] != 7.0


def test_missing_data_is_a_line_and_the_others_continue(trained, tmp_path, capsys, blank_figures):
    copy = trained.copy(tmp_path / "study")
    argv = ["analyse", str(copy.directory), "--only", "calibration"]
    assert main(argv) == 0  # without the experiment file
    said = "it needs the experiment file width.py; give it after the directory"
    assert f"calibration: not measured: {said}\n" in capsys.readouterr().out
    assert f"Not measured: {said}." in page(copy.directory)
    assert copy.analyse("--only", "calibration") == 0
    assert "Not measured" not in page(copy.directory)


def test_a_single_run_has_its_page(trained, tmp_path, blank_figures):
    copy = trained.copy(tmp_path / "study")
    run = dataclasses.replace(copy, directory=copy.directory / "wide" / "seed3")
    assert run.analyse("--only", "calibration") == 0
    assert len(read(run.directory)["parts"]["calibration"]["runs"]) == 1
    text = page(run.directory)
    assert "Calibration, as trained and with a temperature" in text
    assert "no interval" in text


def test_a_damaged_analysis_is_replaced(analysed, tmp_path, capsys, blank_figures):
    copy = analysed.copy(tmp_path / "study")
    (copy.directory / "analysis.json").write_text("{")
    assert main(["report", "--workdir", str(copy.directory)]) == 0
    assert "the page has no analysis" in capsys.readouterr().out
    assert copy.analyse("--only", "calibration") == 0
    assert "all is measured again" in capsys.readouterr().out
    assert list(read(copy.directory)["parts"]) == ["calibration"]


def test_wrong_input_is_one_line(trained, tmp_path, capsys):
    study = str(trained.directory)
    refused(capsys, ["analyse", study, "--only", "x"], "--only: 'x' is not a part; allowed: cal")
    refused(capsys, ["analyse", str(tmp_path)], "holds neither a study nor a run")
    refused(capsys, ["analyse", study, str(tmp_path / "x.py")], "there is no such file")
    changed = tmp_path / "width.py"
    changed.write_text(trained.file.read_text() + "labels = {}\n")
    refused(capsys, ["analyse", study, str(changed)], "width.py")
    assert not (trained.directory / "analysis.json").exists()
