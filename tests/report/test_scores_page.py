"""The command `compare`: its page, tables and answers, and what it refuses."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_study import write_study

from cifar_jax import main as door
from cifar_jax.study.grid import Sweep

DATA = Path(__file__).parents[1] / "data" / "scores"
TABLE = """model,seed,test_accuracy
relu,0,0.80
relu,1,0.82
relu,2,0.81
mish,0,0.83
mish,1,0.84
mish,2,0.83
<b>gelu</b> | $x$,7,0.9
<b>gelu</b> | $x$,8,0.8
"""


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scores.csv"
    path.write_text(TABLE)
    return path


def test_the_page_has_answer_notices_and_tables(table, capsys):
    assert door.main(["compare", "scores.csv"]) == 0
    workdir = Path("runs/compare-scores")
    files = ["report.html", "runs.csv", "summary.json", "table.md", "table.tex"]
    assert sorted(path.name for path in workdir.iterdir()) == files
    page = Page((workdir / "report.html").read_text())
    answer = "mish minus relu: +2.33 points (95 % interval +0.90 to +3.77, 3 pairs)"
    answer += ": a difference is shown"
    lines = capsys.readouterr().out.splitlines()
    assert answer in lines
    assert lines[-1] == f"report: {workdir / 'report.html'}"
    assert (
        "Of 2 arms compared with relu, 1 differs in test_accuracy after Holm's correction: mish "
        "+2.33 points (95 % interval +0.90 to +3.77, 3 pairs)." in page.text
    )
    assert "unpaired, because they share no seed" in page.text
    assert "<b>gelu</b> | $x$" in page.text
    assert "b" not in [tag for tag in page.tags if tag == "b"][1:]  # only that of the caption
    assert page.tags.count("script") == 1  # the page's own
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["comparison"] == {"source": "scores.csv", "metric": "test_accuracy"}
    assert (
        "| mish | 3 | 83.33 | 0.58 | +2.33 | +0.90 to +3.77 |" in (workdir / "table.md").read_text()
    )


def test_the_same_comparison_may_be_written_again(table, capsys):
    command = ["compare", "scores.csv", "--workdir", "out"]
    assert door.main(command) == 0
    first = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert door.main(command) == 0
    assert first == {path: path.read_bytes() for path in Path("out").iterdir()}
    assert door.main([*command, "--control", "mish"]) == 0
    assert json.loads(Path("out/summary.json").read_text())["control"] == "mish"
    capsys.readouterr()
    table.rename("others.csv")
    assert door.main(["compare", "others.csv", "--workdir", "out"]) == 2
    assert "out: has another comparison in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["scores.csv", "--workdir", "."], "has something else in it"),
        (["scores.csv", "--workdir", "scores.csv"], "is not a directory"),
        (["scores.csv", "--control", "selu"], "control 'selu': is not an arm"),
        (
            ["scores.csv", "scores.csv"],
            "is not a study; compare takes one table, with a column",
        ),
        (["."], ".: has no study in it"),
        (["missing.csv"], "missing.csv: there is no such file"),
        ([], "required: TABLE|STUDY"),
    ],
)
def test_wrong_use_ends_in_one_line_and_writes_nothing(table, capsys, argv, said):
    assert door.main(["compare", *argv]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["scores.csv"]


def test_two_arms_and_one_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("model,seed,loss\na,0,1.5\nb,0,1.25\n")
    assert door.main(["compare", "t.csv"]) == 0
    text = Page(Path("runs/compare-t/report.html").read_text()).text
    assert "undecided whether b and a differ in loss: -0.250 (1 pair); one seed gives no" in text
    assert "Only one run of a, b" in text


def test_jax_is_not_imported(tmp_path):
    path = DATA / "dopamine-asterix.jsonl"
    code = (
        "import sys; from cifar_jax.main import main; "
        f"assert main(['compare', {str(path)!r}, '--workdir', {str(tmp_path / 'out')!r}]) == 0; "
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_studies_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "swept"):
        Path(name).mkdir()
    write_study(tmp_path / "one", epochs=2)
    write_study(tmp_path / "two", arms=("none", "layer"), epochs=2)
    sweep = Sweep("training.learning_rate", (0.01, 0.1))
    write_study(tmp_path / "swept", sweep=sweep, seeds=(1, 2), epochs=2)
    assert door.main(["compare", "one", "two"]) == 0
    head, _, *rows = Path("runs/compare-one-two/table.md").read_text().splitlines()
    assert head.startswith("|  | one: n |")
    assert [row.split(" | ")[0].strip("| ") for row in rows[:3]] == [
        "baseline",
        "BatchNorm",
        "LayerNorm",
    ]
    tex = Path("runs/compare-one-two/table.tex").read_text()
    assert r"\multicolumn{5}{c}{one} & \multicolumn{5}{c}{two}" in tex
    assert door.main(["compare", "one", "swept", "--workdir", "all"]) == 0
    assert "BatchNorm, learning rate 0.1" in Path("all/table.md").read_text()
    capsys.readouterr()
    assert door.main(["compare", "one", "one"]) == 2
    assert "a study is given twice" in capsys.readouterr().err
    assert door.main(["compare", "one", "two", "--metric", "x"]) == 2
    assert "--metric: is only for a table" in capsys.readouterr().err
