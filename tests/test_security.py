"""What a user downloads cannot run code, reach the network, or speak to terminal and browser."""

import ast
import contextlib
import io
import json
import os
import re
import socket
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from small import draw_blank, shrink

from cifar_jax.data.sources import decode
from cifar_jax.data.sources.contents import PLAIN, FolderOptions
from cifar_jax.errors import UserError
from cifar_jax.inputs import is_part, read_bytes, read_json
from cifar_jax.main import main
from cifar_jax.report.scripts import scripts
from cifar_jax.storage import check_inside
from cifar_jax.study.collect import read_study
from cifar_jax.study.record import LostPlan, read_plan

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for d in ("cifar_jax", "benchmarks") for p in (ROOT / d).rglob("*.py"))
HOSTILE = ("<script>alert(1)", "a|b`*_[x](y)", "$\\frac$ {{7*7}}", ":cat: [red]")

# --- the code ------------------------------------------------------------------------------------

# The only module that runs a file of the user.
EXPERIMENT_FILES = ROOT / "cifar_jax" / "study" / "file.py"
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def _name(node: ast.expr) -> str:
    return ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_pickle_and_nothing_that_runs_text(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & UNPICKLERS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNPICKLERS
        elif isinstance(node, ast.Call):
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            runs_text = _name(node.func) in ("eval", "exec", "os.system", "os.popen", "__import__")
            assert not runs_text or path == EXPERIMENT_FILES
            assert options.get("shell", "False") == "False"
            if _name(node.func) in ("np.load", "numpy.load"):
                assert options.get("allow_pickle") == "False", "np.load without allow_pickle=False"


# --- files ---------------------------------------------------------------------------------------


def test_only_regular_files_of_limited_size_are_read(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.write_bytes(b"12345")
    assert read_bytes(whole, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bytes(whole, 4)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path, 5)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, 5)


@pytest.mark.parametrize("text", ["NaN", "[1, Infinity]", "[" * 10_000, "{", "9" * 5000, b"\xff"])
def test_json_that_is_not_standard_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError):  # noqa: PT011 - which kind depends on what is wrong
        read_json(path)


def test_parts_of_a_path() -> None:
    assert is_part("layer norm.2")
    assert not any(map(is_part, ("", ".", "..", "a/b", "/", "a\\b", "a\nb", "\x1b[0m", 3)))


def test_no_program_is_started_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow hands PostScript to Ghostscript; here that is a script which leaves a mark."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'executed'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    image = tmp_path / "x.png"
    image.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
    )
    # Pillow itself would.
    with contextlib.suppress(OSError), Image.open(image) as opened:
        opened.load()
    assert (tmp_path / "executed").exists()
    (tmp_path / "executed").unlink()
    with pytest.raises(UserError, match=r"x\.png: cannot be read \(not an image"):
        decode.decode_files(str(tmp_path), ["x.png"], FolderOptions(resize=True), lambda _: None)
    assert not (tmp_path / "executed").exists()


def test_giant_images_and_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ppm"
    path.write_bytes(b"P6\n9000 9943\n255\n")  # a few pixels above the limit, none of them there
    with pytest.raises(UserError, match=r"9000x9943 pixels|bomb"):
        decode.decode_files(str(tmp_path), ["x.ppm"], FolderOptions(resize=True), lambda _: None)
    with path.open("wb") as file:
        file.truncate(decode.MOST_BYTES + 1)
    with pytest.raises(UserError, match="larger than 134,217,728 bytes"):
        decode.decode(str(path), PLAIN)


# --- a study of a hostile folder, without network ------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder whose class names are made to break things."""
    root = tmp_path_factory.mktemp("hostile") / "<b>images"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label, name in enumerate(HOSTILE):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (32, 32, 3), np.uint8) + np.uint8(60 * label)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


class _Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(hostile: Path, cache_directory: Path) -> tuple[Path, str]:
    """The study's directory, and what the terminal showed; any connection is an error."""

    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    workdir = hostile.parent / "study"
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setenv("CIFAR_JAX_CACHE", str(cache_directory))
        shrink(patch.setattr)
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, connect)
        patch.setattr(socket, "getaddrinfo", connect)
        places = ("--dataset", str(hostile), "--workdir", str(workdir))
        sizes = ("--seeds", "1", "--epochs", "1", "--val-examples", "8", "--batch-size", "8")
        status = main(["study", "--arms", "none", *places, *sizes])
    assert status == 0
    return workdir, shown.getvalue()


def test_hostile_class_names_are_text_in_the_page(made: tuple[Path, str]) -> None:
    html = (made[0] / "report.html").read_text(encoding="utf-8")
    page = _Page(html)
    assert not {"iframe", "object", "b-images"} & page.tags
    assert not {a for a in page.attributes if a.startswith("on")}
    for name in HOSTILE:
        assert name in page.text


def test_a_page_has_no_scripts_but_the_packages(made: tuple[Path, str]) -> None:
    html = (made[0] / "report.html").read_text(encoding="utf-8")
    own = str(scripts("network.js", "operators.js", "picture.js", "demo.js"))
    html = html.replace(str(scripts("page.js")), "")
    before, data, after = re.split(r'<script type="application/json"[^>]*>([^<]*)</script>', html)
    assert own in after
    assert "<script" not in before + after.replace(own, "")
    assert set(json.loads(data)["classes"]) == set(HOSTILE)


def test_a_browser_shows_hostile_class_names_and_connects_to_nothing(
    made: tuple[Path, str], browser: Browser
) -> None:
    browser.open(made[0] / "report.html")
    cells = browser.evaluate(
        "[...document.querySelectorAll('.demo tbody th')].map(x => x.innerText)"
    )
    assert set(cells) == set(HOSTILE)
    assert browser.evaluate("document.querySelectorAll('.ask script, .ask b-images').length") == 0
    assert browser.console == []
    assert browser.evaluate("fetch('https://example.com').catch(error => 'refused')") == "refused"
    assert any("violates the following Content Security Policy" in x for x in browser.console)
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)


def test_hostile_class_names_are_text_in_markdown(made: tuple[Path, str]) -> None:
    for name in ("report.md", "none/model_card.md"):
        text = (made[0] / name).read_text(encoding="utf-8")
        assert "<script" not in text.replace("\\<", "")
        assert "a\\|b\\`\\*\\_\\[x\\](y)" in text
        assert "](y)" not in text.replace("\\]", "")


def test_hostile_class_names_are_text_in_figures(made: tuple[Path, str]) -> None:
    figures = sorted((made[0] / "figures").glob("*.svg"))
    assert sum(path.read_text().count("<path") for path in figures) > 100
    for path in figures:
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert "script" not in tags


def test_study_of_hostile_names_is_whole(made: tuple[Path, str]) -> None:
    study = read_study(made[0])
    assert study.dataset.classes == tuple(sorted(HOSTILE))
    assert study.missing == ()


def test_terminal_shows_names_as_they_are(
    hostile: Path,
    made: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir, shown = made
    shrink(monkeypatch.setattr)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert main(["evaluate", "--checkpoint", str(workdir / "none/seed42")]) == 0
    out = capsys.readouterr().out
    for name in HOSTILE:
        assert name in out
    assert all(line.isprintable() for line in out.split("\n"))


def test_control_characters_in_a_study_do_not_reach_the_terminal(
    made: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw_blank(monkeypatch.setattr)
    path = made[0] / "study.json"
    before = path.read_text()
    plan = json.loads(before)
    try:
        for arms in (["\x1b[31mred"], ["../../elsewhere"], [".."], ["none", "a/b"]):
            path.write_text(json.dumps({**plan, "arms": arms}))
            with pytest.raises(LostPlan, match=r"study\.json: cannot be used: "):
                read_plan(made[0])
        # It is made again from the runs, and says nothing of what was there.
        path.write_text(json.dumps({**plan, "arms": ["\x1b[31mred", "../up"]}))
        assert main(["report", "--workdir", str(made[0])]) == 0
        assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
        assert json.loads(path.read_text())["arms"] == plan["arms"]
    finally:
        path.write_text(before)


def test_report_is_not_written_through_a_link(
    made: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = made[0]
    (tmp_path / "elsewhere").mkdir()
    (workdir / "figures").rename(workdir / "before")
    (workdir / "figures").symlink_to(tmp_path / "elsewhere")
    try:
        assert main(["report", "--workdir", str(workdir)]) == 2
    finally:
        (workdir / "figures").unlink()
        (workdir / "before").rename(workdir / "figures")
    assert "figures: is a link out of" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())
    check_inside(workdir / "none", workdir)


def test_output_survives_a_terminal_without_unicode() -> None:
    """A class name that the terminal cannot show must not end a run."""
    import subprocess

    code = (
        "from cifar_jax import main as door\n"
        "from cifar_jax.runner.console import Display\n"
        "door.main = lambda argv: Display().say('café') or 0\n"
        "door.main_cli()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "caf\\xe9\n")
