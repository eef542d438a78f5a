"""`report` on the directory of one run: its page, or one line that says why there is none."""

import json
import re

import numpy as np
import pytest
from fake_study import CLASSES, fake_images, write_run
from small import draw_blank

from cifar_jax.commands import report as run_report
from cifar_jax.errors import UserError
from cifar_jax.main import main
from cifar_jax.report import image_plots, run_page
from cifar_jax.report.scripts import scripts
from cifar_jax.runner import moved
from cifar_jax.runner.console import Display
from cifar_jax.study.grid import norm_arm

pytestmark = pytest.mark.usefixtures("blank_figures")


def write(directory, name="cifar10", classes=CLASSES, epochs=4):
    """A run with BatchNorm and seed 7; returns its images."""
    images = fake_images(name, classes, 100, max(60, len(classes)))
    write_run(directory, 7, norm_arm("batch"), images, epochs, 10)
    return images


def change(directory, **entries):
    path = directory / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


class Lines(Display):
    """A display that keeps what is said."""

    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, text):
        self.said.append(text)


def report(directory, images, monkeypatch):
    """The text of the page, without pictures, and what was said."""
    monkeypatch.setattr(moved, "open_dataset", lambda config, _: (config, images))
    display = Lines()
    page = run_report.report_run(directory, display=display)
    text = page.read_text(encoding="utf-8")
    return re.sub(r"data:image/webp;base64,[\w+/=]+", "PICTURE", text), display.said


def test_the_page_says_where_time_went(tmp_path, monkeypatch):
    images = write(tmp_path / "run")
    html, _ = report(tmp_path / "run", images, monkeypatch)
    assert "Where time went" not in html  # An earlier version did not record it.
    seconds = {"data": 2, "compiling": 10, "training": 80, "writing": 1, "evaluation": 3}
    change(tmp_path / "run", spent=seconds)
    html, _ = report(tmp_path / "run", images, monkeypatch)
    table = html[html.index("Where time went") :]
    rows = re.findall(r">([\d.]+) s</td>\s*<td[^>]*>([\d.]+) %", table)
    assert [float(one) for one, _ in rows][:5] == [2, 10, 80, 1, 3]
    drawing, everything = (float(one) for one, _ in rows[5:])
    assert everything == pytest.approx(96 + drawing, abs=0.06)
    assert float(rows[2][1]) == pytest.approx(80 / everything * 100, abs=0.2)


def test_the_page_of_a_run_is_one_file_with_everything(tmp_path, monkeypatch):
    images = write(tmp_path / "run")
    before = {path.name for path in (tmp_path / "run").iterdir()}
    html, said = report(tmp_path / "run", images, monkeypatch)
    assert {path.name for path in (tmp_path / "run").iterdir()} - before == {"report.html"}
    assert said == [f"report: {tmp_path / 'run' / 'report.html'}"]
    assert html.count('src="PICTURE"') == 6
    assert not re.search(r"https?:|//\w|@import|url\(", html)
    run = run_report.read_outcome(tmp_path / "run")
    right = int(np.sum(run.predicted == run.label))
    assert f"{100 * right / 60:.2f} % ({right} of 60)" in html
    for text in (
        "CIFAR-10, cnn, BatchNorm, seed 7",
        "Most confident mistakes",
        "jax 0.10.2",
        "cpu: Fake Processor, 2 cores",
        "0123456789abcdef",
        "learning_rate = 0.01",
        "fingerprint abababab",
    ):
        assert text in html, text
    assert "not CIFAR-10" not in html
    assert "[study]" not in html


def test_each_class_has_its_accuracy_and_its_commonest_error(tmp_path):
    write(tmp_path / "run")
    run = run_report.read_outcome(tmp_path / "run")
    for number, row in enumerate(run_page.classes_table(run).rows):
        of_class = run.predicted[run.label == number]
        assert row[:2] == (CLASSES[number], "6")
        assert row[2] == f"{100 * np.mean(of_class == number):.1f} %"
        wrong = np.bincount(of_class[of_class != number], minlength=10)
        if wrong.any():
            assert row[3] == f"{CLASSES[wrong.argmax()]} ({wrong.max()})"


def test_mistakes_are_wrong_and_the_most_confident_first(tmp_path):
    images = write(tmp_path / "run")
    run = run_report.read_outcome(tmp_path / "run")
    rows, confidence = image_plots.mistakes(run)
    assert sorted(rows.tolist()) == np.flatnonzero(run.predicted != run.label).tolist()
    assert list(confidence) == sorted(confidence, reverse=True)
    one = run.logits[rows[0]].astype(np.float64)
    assert confidence[0] == pytest.approx(np.exp(one.max()) / np.exp(one).sum())
    figure = image_plots.mistake_images(run, images, "t")
    (axes,) = figure.axes
    pictures = [image.get_array() for image in axes.images]
    texts = [t.get_text() for t in axes.texts]
    words = [texts[i : i + 3] for i in range(0, len(texts), 3)]
    assert len(pictures) == len(words) == min(15, len(rows))
    assert np.array_equal(pictures[0], images.test_images[rows[0]])
    assert words[0] == [
        f"true\n{CLASSES[run.label[rows[0]]]}",
        f"predicted\n{CLASSES[run.predicted[rows[0]]]}",
        f"confidence\n{100 * confidence[0]:.1f} %",
    ]


def test_without_the_images_the_page_says_why(tmp_path, capsys):
    write(tmp_path / "run", name="folder-moved")
    assert main(["report", "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "the page shows no images: --dataset /home/somebody/moved: no such dataset" in said
    html = (tmp_path / "run" / "report.html").read_text()
    assert "Most confident mistakes</b> is missing. The images were not found" in html
    assert html.count("data:image/webp") == 5


def test_other_images_are_not_shown(tmp_path, monkeypatch):
    images = write(tmp_path / "run")
    other = type(images)(**{**vars(images), "fingerprint": "cd" * 32})
    html, said = report(tmp_path / "run", other, monkeypatch)
    assert said[0] == "the page shows no images: cifar10 has other images than the run"
    assert html.count('src="PICTURE"') == 5


def test_synthetic_images_are_named(tmp_path, monkeypatch):
    html, _ = report(tmp_path / "run", write(tmp_path / "run", name="synthetic"), monkeypatch)
    assert "These are not CIFAR-10 results" in html
    assert "synthetic images (not CIFAR-10), cnn" in html


def test_a_run_that_diverged_has_its_page(tmp_path, monkeypatch):
    images = write(tmp_path / "run")
    (tmp_path / "run" / "predictions.npz").unlink()
    ended = {"epoch": 5, "step": 17, "operation": None}
    change(tmp_path / "run", status="diverged", diverged=ended)
    html, _ = report(tmp_path / "run", images, monkeypatch)
    assert "diverged in epoch 5, step 17: the loss is not finite" in html
    assert html.count('src="PICTURE"') == 2
    assert "reaches a test accuracy" not in html
    change(tmp_path / "run", history=[])
    html, _ = report(tmp_path / "run", images, monkeypatch)
    assert html.count("No epoch was finished") == 2


def test_a_figure_that_fails_leaves_the_page(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    images = write(tmp_path / "run")
    draw_blank(monkeypatch.setattr)  # This file has built the figure already.
    monkeypatch.setattr(run_page, "confusions", fail)
    html, said = report(tmp_path / "run", images, monkeypatch)
    assert html.count('src="PICTURE"') == 5
    assert "Confusion matrix</b> is missing. It could not be drawn: out of memory." in html
    assert said[0].startswith("warning: figure confusion_matrix could not be drawn")


def test_a_run_that_is_not_finished_is_one_line(tmp_path, capsys):
    write(tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert main(["report", "--workdir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "this run is not finished (1 epoch so far)" in error
    assert "--resume" in error
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_directory_with_neither_is_one_line(tmp_path, capsys):
    assert main(["report", "--workdir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"cifar_jax: error: --workdir {tmp_path}: holds neither a study nor a run\n"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "predictions.npz").write_bytes(b"no"),
        lambda run: (run / "results.json").write_text("{"),
        lambda run: (run / "results.json").write_text("[]"),
        lambda run: change(run, status="diverged", diverged={"epoch": 1, "step": 1}, norm=3),
        lambda run: change(run, seed="x"),
    ],
)
def test_damaged_results_are_one_line(tmp_path, damage):
    write(tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(UserError, match=r"(results\.json|predictions\.npz): cannot be used"):
        run_report.read_outcome(tmp_path / "run")


def test_a_link_out_of_the_run_is_refused(tmp_path, monkeypatch):
    images = write(tmp_path / "run")
    (tmp_path / "run" / "report.html").symlink_to(tmp_path / "elsewhere.html")
    with pytest.raises(UserError, match="is a link out of"):
        report(tmp_path / "run", images, monkeypatch)


def test_notes_on_the_images_are_listed(tmp_path, monkeypatch):
    images = write(tmp_path / "run")
    data = json.loads((tmp_path / "run" / "results.json").read_text())["dataset"]
    change(tmp_path / "run", dataset={**data, "notes": ["3 files are no images: <a>.txt"]})
    html, _ = report(tmp_path / "run", images, monkeypatch)
    assert "<li>3 files are no images: &lt;a&gt;.txt</li>" in html


def test_a_long_table_is_folded(tmp_path, monkeypatch):
    names = [f"kind {number}" for number in range(70)]
    html, _ = report(tmp_path / "run", write(tmp_path / "run", classes=names), monkeypatch)
    assert html.count('<details class="long">') == 1
    assert html.count("</details>") == 2  # with the contents
    assert "70 rows" in html


def test_hostile_names_are_text(tmp_path, monkeypatch):
    odd = ("<script>alert(1)</script>", "$x_1$", "a|b", "猫")
    html, _ = report(tmp_path / "run", write(tmp_path / "run", classes=odd), monkeypatch)
    assert "<script" not in html.replace(str(scripts("page.js")), "")
    assert "猫" in html
