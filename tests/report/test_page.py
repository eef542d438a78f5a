"""The report of a study: what it says, that it is one file, and that a browser shows it."""

import base64
import io
import json
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_study import write_study
from made_up import changed
from PIL import Image

from cifar_jax.report import headline, page, tables
from cifar_jax.report.scripts import scripts
from cifar_jax.report.study_figures import study_figures
from cifar_jax.report.sweep_page import write_sweep_report
from cifar_jax.report.text import NONE
from cifar_jax.report.times import time_table
from cifar_jax.runner.results import Spent
from cifar_jax.study.collect import read_study, read_sweep
from cifar_jax.study.grid import Sweep
from cifar_jax.study.summary import summarise, time_spent
from cifar_jax.study.sweep import summarise_sweep

ODD = ("<script>alert(1)</script>", "a|b", "$x_1$", '"quoted" & more')
NOTES = ("3 images <b>with</b> transparent pixels; the first: a|b", "1 image of one colour")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.text += data


def report(workdir, images="own", **options):
    """Write a study and its report; returns study, summary and the paths written."""
    own = write_study(workdir, **options)
    study = read_study(workdir)
    summary = summarise(study)
    written = page.write_report(study, summary, own if images == "own" else images)
    return study, summary, written


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return report(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Synthetic images with hostile class names, one seed, one missing run, no images."""
    workdir = tmp_path_factory.mktemp("odd")
    return report(
        workdir,
        images=None,
        name="synthetic",
        classes=ODD,
        seeds=(5, 6),
        missing=[("batch", 6)],
        epochs=2,
        notes=NOTES,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of six values."""
    workdir = tmp_path_factory.mktemp("swept")
    sweep = Sweep("training.batch_size", (8, 16, 32, 64, 128, 256))
    own = write_study(workdir, sweep=sweep, seeds=(42, 43), epochs=3)
    study = read_sweep(workdir)
    summary = summarise_sweep(study)
    return study.first, summary, write_sweep_report(study, summary, own)


def text_of(made, name):
    return (made[0].workdir / name).read_text(encoding="utf-8")


def test_everything_is_written(full):
    study, _, written = full
    names = {str(path.relative_to(study.workdir)) for path in written}
    assert all(path.stat().st_size > 0 for path in written)
    assert {"report.html", "report.md", "summary.json"} < names
    assert {"none/model_card.md", "batch/model_card.md"} < names
    assert len([n for n in names if n.startswith("figures/")]) == 24
    assert not list(study.workdir.rglob(".*"))


def test_where_time_went_is_the_sum_over_runs(full):
    study, _, _ = full
    assert "Where time went" not in text_of(full, "report.html")
    spent = Spent(data=0.5, compiling=2.0, training=30.0, writing=1.0, evaluation=4.0)
    runs = [changed(run, spent=spent) for row in study.runs.values() for run in row]
    sums = time_spent(runs)
    assert sums["training"] == 30 * len(runs)
    assert time_spent([runs[0], changed(runs[1], spent=None)]) == {}
    rows = time_table(sums, drawing=2.5).rows
    assert rows[-1] == ("all", f"{37.5 * len(runs) + 2.5:,.1f} s", "100.0 %")
    assert rows[-2][1] == "2.5 s"


def test_page_is_one_file_without_external_address(full):
    html = text_of(full, "report.html")
    found = Page(html)
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    without_images = re.sub(r"data:image/webp;base64,[\w+/=]+", "", html)
    assert not re.search(r"https?:|//\w|@import|url\(", without_images)
    assert not {"link rel=stylesheet", "iframe"} & set(found.tags)
    assert found.tags.count("script") == 1


def test_page_holds_the_figures_that_were_written(full):
    study = full[0]
    embedded = re.findall(r'src="data:image/webp;base64,([\w+/=]+)"', text_of(full, "report.html"))
    files = sorted((study.workdir / "figures").glob("*.png"))
    for text, path in zip(embedded, files, strict=True):
        shown, drawn = (Image.open(f) for f in (io.BytesIO(base64.b64decode(text)), path))
        np.testing.assert_array_equal(shown, drawn.convert("RGB"))


def test_class_names_are_escaped(odd):
    html = text_of(odd, "report.html")
    found = Page(html)
    assert "<script" not in html.replace(str(scripts("page.js")), "")
    assert all(name in found.text for name in ODD)
    markdown = text_of(odd, "report.md")
    assert "<script" not in re.sub(r"\\<", "", markdown)
    assert "a\\|b" in markdown


def test_notes_on_the_data_are_on_the_page(odd, full):
    text, found = text_of(odd, "report.md"), Page(text_of(odd, "report.html"))
    assert all(note in found.text for note in NOTES)
    assert "b" not in found.tags or "<b>with" not in text_of(odd, "report.html")
    assert "## Data" in text
    assert "- 1 image of one colour\n" in text
    assert 'id="data"' in text_of(odd, "report.html")
    assert 'id="data"' not in text_of(full, "report.html")


@pytest.mark.parametrize("made", ["full", "odd"])
def test_markdown_tables_are_whole(made, request):
    lines = text_of(request.getfixturevalue(made), "report.md").splitlines()
    tables, current = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            current.append(len(re.findall(r"(?<!\\)\|", line)))
        elif current:
            tables.append(current)
            current = []
    assert len(tables) >= 7
    assert all(len(table) > 2 and len(set(table)) == 1 for table in tables)


def test_markdown_and_page_show_the_same_numbers(full):
    html = Page(text_of(full, "report.html")).text
    markdown = text_of(full, "report.md").replace("\\", "")
    study, summary, _ = full
    for table in (tables.main_table(study, summary), tables.claims_table(study, summary)):
        for row in table.rows:
            assert all(cell in html for cell in row)
            assert f"| {' | '.join(row)} |" in markdown


def test_markdown_shows_the_figures(full):
    study = full[0]
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text_of(full, "report.md"))
    assert len(links) == 12
    assert all((study.workdir / link).is_file() for link in links)


def test_summary_is_strict_json(odd):
    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(text_of(odd, "summary.json"), parse_constant=refuse)
    assert read["arms"] == ["none", "batch"]
    assert read["missing"] == [["batch", 6]]


def test_main_table_is_ours_beside_the_published(full):
    study, summary, _ = full
    rows = {row[0]: row[1:] for row in tables.main_table(study, summary).rows}
    accuracies = 100 * np.array([r.results.test_accuracy for r in study.runs["batch"]])
    mean, std = accuracies.mean(), accuracies.std(ddof=1)
    assert rows["test accuracy, BatchNorm"][0] == f"{mean:.2f} ± {std:.2f} %"
    assert [rows[f"test accuracy, {arm}"][2] for arm in ("baseline", "BatchNorm")] == [
        "78.15 %",
        "81.62 %",
    ]
    assert rows["difference of accuracy"][2] == "+3.47 points"
    assert rows["difference of time"][2] == "+11.3 %"
    assert rows["trainable parameters, baseline"] == ("620,362", NONE, "620,362")
    assert rows["difference of parameters"][0] == rows["difference of parameters"][2] == "+0.15 %"


def test_synthetic_images_are_named_everywhere(odd):
    study, summary, _ = odd
    for name in ("report.html", "report.md"):
        text = text_of(odd, name)
        assert "These are not CIFAR-10 results" in text
        assert "ublished" not in text
    assert len(tables.main_table(study, summary).head) == 3
    assert "synthetic images (not CIFAR-10)" in headline.headline(study, summary)
    assert "These are not CIFAR-10 results" in " ".join(headline.notices(study, summary))


def test_cifar10_has_no_such_notice(full):
    assert headline.notices(full[0], full[1]) == []


def test_missing_runs_and_missing_intervals_are_said(odd):
    html = Page(text_of(odd, "report.html")).text
    assert "BatchNorm seed 6" in html
    assert odd[1]["reason_no_intervals"] in html
    assert "is missing. The images were not found" in html


def headline_of(full, ends, gain=0.05):
    study, summary, _ = full
    row = {**summary["paired"]["test_accuracy"], "mean_difference": gain, "ci_t": ends}
    changed = {**summary, "paired": {**summary["paired"], "test_accuracy": row}}
    return headline.headline(study, changed)


def test_headline_says_what_the_interval_allows(full):
    better = headline_of(full, [0.04, 0.06])
    assert better == (
        "On CIFAR-10, BatchNorm raises the test accuracy by 5.00 points against the baseline "
        "(95 % interval +4.00 to +6.00, 3 paired seeds)."
    )
    assert "BatchNorm lowers the test accuracy by 5.00" in headline_of(full, [-0.06, -0.04], -0.05)
    assert headline_of(full, [-0.02, 0.323], 0.1515) == (
        "On CIFAR-10, it is undecided whether BatchNorm changes the test accuracy: BatchNorm minus "
        "baseline is +15.15 points (95 % interval -2.00 to +32.30) with 3 paired seeds; the "
        "interval includes zero."
    )


def test_headline_without_an_interval_is_undecided_and_says_why(tmp_path):
    """One seed; and seeds and images that show no difference at all."""
    write_study(tmp_path / "one", seeds=(42,), epochs=1)
    one = read_study(tmp_path / "one")
    found = headline.headline(one, summarise(one))
    assert "undecided" in found
    assert "with the one seed 42; one seed gives no interval." in found
    write_study(tmp_path / "same", seeds=(42, 43), epochs=1)
    for seed in (42, 43):
        shutil.rmtree(tmp_path / "same" / "batch" / f"seed{seed}")
        shutil.copytree(
            tmp_path / "same" / "none" / f"seed{seed}", tmp_path / "same" / "batch" / f"seed{seed}"
        )
        path = tmp_path / "same" / "batch" / f"seed{seed}" / "results.json"
        path.write_text(path.read_text().replace('"norm": "none"', '"norm": "batch"'))
    same = read_study(tmp_path / "same")
    summary = summarise(same)
    assert "undecided" in headline.headline(same, summary)
    assert "so there is no spread and no interval" in headline.headline(same, summary)
    assert summary["reason_no_intervals"] in headline.notices(same, summary)
    row = summary["paired"]["test_accuracy"]
    assert {row[key] for key in ("ci_t", "ci_bootstrap", "p_t", "p_sign_flip", "cohens_dz")} == {
        None
    }


def test_one_arm_is_described_without_comparison(tmp_path):
    study, summary, written = report(
        tmp_path, arms=("batch",), seeds=(9,), name="folder-secret place", epochs=1
    )
    assert headline.headline(study, summary).endswith("nothing is compared.")
    html = (tmp_path / "report.html").read_text()
    assert "Claims" not in Page(html).text
    drawn = sum(figure.build is not None for figure in study_figures(study, summary, None))
    assert drawn == 7
    assert len([p for p in written if p.suffix == ".svg"]) == 9


def test_config_repeats_the_study_without_machine_paths(tmp_path):
    write_study(tmp_path, name="folder-mine", seeds=(3, 4), epochs=2)
    text = page.config_toml(read_study(tmp_path))
    read = tomllib.loads(text)
    assert "/home" not in text
    assert read["data"]["dataset"] == "path/to/mine"
    assert read["training"]["seed"] == 3
    assert read["study"] == {"arms": "none,batch", "seeds": 2}


def test_unwritable_directory_is_one_line(tmp_path, full):
    study, summary, _ = full
    (tmp_path / "figures").write_text("in the way")
    moved = type(study)(**{**vars(study), "workdir": tmp_path})
    with pytest.raises(page.UserError, match="figures: cannot be made"):
        page.write_report(moved, summary, None)


def test_a_figure_that_fails_costs_nothing_else(tmp_path, monkeypatch):
    """A study's numbers are there before the first figure; a failing one says so on the page."""
    workdir = tmp_path / "study"
    write_study(workdir, seeds=(1,), epochs=1)
    study = read_study(workdir)
    summary = summarise(study)
    seen = []

    def write(contents, directory, stem):
        seen.append((workdir / "summary.json").is_file())
        if stem == "05_confusion":
            raise MemoryError
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_figure", write)
    lines = []
    written = page.write_report(study, summary, None, lines.append)
    assert seen
    assert all(seen)
    assert len(lines) == len(seen)
    assert all(line.startswith("warning: figure ") for line in lines)
    html = (workdir / "report.html").read_text()
    assert "Confusion matrices</b> is missing. It could not be drawn: out of memory." in html
    assert "It could not be drawn: No space left on device." in html
    assert {"report.html", "report.md", "summary.json"} <= {path.name for path in written}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a|b", "a\\|b"), ("<b>", "\\<b\\>"), ("x\ny", "x y"), ("1.5 ± 0.2 %", "1.5 ± 0.2 %")],
)
def test_escape_markdown(text, expected):
    assert page.escape_markdown(text) == expected


PROBE = """<script>
window.problems = [];
window.addEventListener("error", e => window.problems.push(String(e.message)), true);
window.addEventListener("load", () => {
  const images = [...document.images];
  const root = document.documentElement;
  const over = [...document.querySelectorAll("body *")].filter(
    e => !e.closest(".wide, pre") && e.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage(JSON.stringify({
    width: innerWidth, scroll: root.scrollWidth, problems: window.problems,
    images: images.length, loaded: images.filter(i => i.naturalWidth > 0).length,
    over: over.map(e => e.tagName), dark: matchMedia("(prefers-color-scheme: dark)").matches,
    page: getComputedStyle(document.body).backgroundColor
  }), "*");
});
</script>"""


# A window has a least width, a frame has none.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark">
<script>
addEventListener("message", e => document.documentElement.setAttribute("data-probe", e.data));
</script>
<iframe src="probed.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""


def probe(html, tmp_path, width, scheme):
    """What a headless browser says about a page, and its console."""
    copy = html.replace("<head>", f"<head>{PROBE}", 1)
    (tmp_path / "probed.html").write_text(copy, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        "--window-size=1400,1000",
        "--virtual-time-budget=10000",
        "--dump-dom",
        frame.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(found[1].replace("&quot;", '"')), console


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize(
    ("made", "images", "width", "scheme"),
    [
        ("full", 12, 390, "light"),
        ("full", 12, 1280, "dark"),
        ("odd", 9, 390, "dark"),
        ("odd", 9, 1280, "light"),
        ("swept", 6, 390, "light"),
        ("swept", 6, 1280, "dark"),
    ],
)
def test_browser_shows_the_page(made, images, width, scheme, request, tmp_path):
    html = text_of(request.getfixturevalue(made), "report.html")
    found, console = probe(html, tmp_path, width, scheme)
    assert console == []
    assert found["problems"] == []
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["over"] == []
    assert found["images"] == found["loaded"] == images
    assert found["dark"] is (scheme == "dark")
    assert found["page"] == ("rgb(22, 24, 26)" if scheme == "dark" else "rgb(252, 252, 251)")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_probe_sees_what_is_wrong(tmp_path):
    """A page with a broken image, a wide element and an error in the console."""
    html = (
        "<html><head></head><body><div style='width:900px'>x</div><img src='data:image/png;,x'>"
        "<script>console.error('bad')</script></body></html>"
    )
    found, console = probe(html, tmp_path, 390, "light")
    assert found["scroll"] > 390
    assert "DIV" in found["over"]
    assert found["loaded"] == 0
    assert found["problems"]
    assert any("bad" in line for line in console)
