"""The section of the page in which networks answer, of a trained study, used in Chromium."""

import html
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from cifar_jax.main import main
from cifar_jax.report import page as report_page


def data_of(directory: Path) -> dict:
    text = (directory / "report.html").read_text(encoding="utf-8")
    found = re.search(r'id="demo-data">(.*?)</script>', text, re.DOTALL)
    assert found, reason_of(directory)
    return json.loads(found[1])


def reason_of(directory: Path) -> str | None:
    text = (directory / "report.html").read_text(encoding="utf-8")
    found = re.search("The page cannot answer for images: ([^<]*)", text)
    return html.unescape(found[1]) if found else None


@pytest.fixture
def opened(trained, browser):
    """The study's page. A test begins with the first test image and without changes."""
    browser.open(trained.directory / "report.html")
    browser.wait("document.querySelector('.check').textContent")
    return browser


@pytest.fixture
def quick(cache, blank_figures):
    """Cached images, and figures without content."""


def status(browser) -> str:
    return browser.evaluate("document.querySelector('.status').textContent")


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (60, 40), colour).save(path)
    return path


def test_the_page_computes_what_training_recorded(trained, opened):
    """Both seeds of both arms; the largest difference of a logit is below 1e-2."""
    data = data_of(trained.directory)
    assert [arm["label"] for arm in data["arms"]] == ["narrow", "wide"]
    assert [len(arm["networks"]) for arm in data["arms"]] == [2, 2]
    said = opened.evaluate("document.querySelector('.check').textContent")
    largest = re.search(r"differ from the recorded ones by at most ([\d.e-]+)", said)
    assert largest, said
    assert 0 <= float(largest[1]) < 1e-2
    assert opened.console == []
    answer = (
        "narrow: (left|right|top), [0-9.]+ %; wide: (left|right|top), [0-9.]+ %. Its label is left."
    )
    assert re.fullmatch(answer, status(opened))
    assert len((trained.directory / "report.html").read_bytes()) < report_page.LARGEST_PAGE


def test_an_image_is_dropped(opened, tmp_path):
    opened.drop(picture(tmp_path / "blue.png", (0, 0, 255)))
    opened.wait("document.querySelector('.from').textContent.startsWith('blue.png, 60x40')")
    assert "Its label" not in status(opened)
    pixel = "document.querySelector('.eye').getContext('2d').getImageData(5, 5, 1, 1).data"
    assert opened.evaluate(f"Array.from({pixel})") == [0, 0, 255, 255]
    (tmp_path / "words.txt").write_text("no image")
    opened.drop(tmp_path / "words.txt")
    opened.wait("document.querySelector('.problem').textContent")
    assert opened.evaluate("document.querySelector('.problem').textContent") == (
        "words.txt is not an image that this browser can read."
    )
    assert all(url.startswith(("file:", "data:")) for url in opened.requests)


def test_an_image_is_chosen_and_pasted(opened, tmp_path):
    path = picture(tmp_path / "red.png", (255, 0, 0))
    root = opened.call("DOM.getDocument")["root"]["nodeId"]
    node = opened.call("DOM.querySelector", nodeId=root, selector=".choose input")["nodeId"]
    opened.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])
    opened.wait("document.querySelector('.from').textContent.startsWith('red.png, 60x40')")
    opened.evaluate(
        "(async () => { const canvas = document.createElement('canvas');"
        "canvas.getContext('2d').fillRect(0, 0, 9, 9);"
        "const blob = await new Promise(done => canvas.toBlob(done)), data = new DataTransfer();"
        "data.items.add(new File([blob], 'copied.png'));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data})); })()"
    )
    opened.wait("document.querySelector('.from').textContent.startsWith('copied.png, 300x150')")


def test_a_change_is_compared_with_the_image_as_it_was(opened):
    before = status(opened)
    opened.evaluate("document.querySelector('[name=flip]').click()")
    changed = status(opened)
    assert f"Without the changes, {before.partition('. Its')[0]}." in changed
    assert opened.evaluate("document.querySelectorAll('.before').length") == 6
    opened.evaluate("document.querySelector('.reset').click()")
    assert status(opened) == before
    assert opened.evaluate("document.querySelectorAll('.before').length") == 0


def test_it_works_with_the_keyboard_alone(opened):
    """Tab reaches every control once; arrows choose test images and move sliders."""
    opened.evaluate("document.querySelector('.choose input').focus()")
    reached = []
    for _ in range(7):
        reached.append(
            opened.evaluate("document.activeElement.name || document.activeElement.className")
        )
        opened.press("Tab", 9)
    assert reached == ["", "camera", "demo-test", "right", "down", "sigma", "flip"]
    opened.evaluate("document.querySelector('.tests :checked').focus()")
    opened.press("ArrowRight", 39)
    assert "Its label is right." in status(opened)
    opened.evaluate("document.querySelector('[name=down]').focus()")
    opened.press("ArrowRight", 39)
    assert "Without the changes" in status(opened)
    assert opened.evaluate("document.activeElement.parentElement.innerText").split() == [
        "Shift", "down", "1", "px",
    ]  # fmt: skip


def test_the_camera_is_used_and_stopped(opened):
    """Chromium's own false camera."""
    opened.evaluate("document.querySelector('.camera').click()")
    opened.wait("document.querySelector('.from').textContent.startsWith('camera')")
    opened.evaluate("document.querySelector('.camera').click()")
    assert opened.evaluate("document.querySelector('.camera').textContent") == "Camera"
    assert opened.console == []


def test_two_quick_clicks_leave_one_stream_of_the_camera(opened):
    opened.evaluate(
        "(() => { const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media);"
        "window.streams = [];"
        "media.getUserMedia = async wanted => {"
        "const stream = await ask(wanted); streams.push(stream); return stream; }; })()"
    )
    click = "document.querySelector('.camera').click();"
    opened.evaluate(click + click)
    opened.wait("streams.length === 2 && streams.filter(one => one.active).length === 1")
    opened.wait("document.querySelector('.from').textContent.startsWith('camera')")
    opened.evaluate(click)
    assert opened.evaluate("streams.some(one => one.active)") is False


def test_it_fits_a_telephone(opened):
    opened.look(390, 844, dark=True)
    try:
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        opened.look(1280, 900, dark=False)


def test_confidences_are_calibrated_by_what_was_fitted(trained, analysed, tmp_path, quick):
    """`analyse` fits each network's temperature, and a page of one network uses it."""
    assert {arm["temperature"] for arm in data_of(trained.directory)["arms"]} == {None}
    text = (trained.directory / "report.html").read_text()
    assert "Confidences are as trained" in text
    copy = analysed.copy(tmp_path / "study")
    run = copy.directory / "wide" / "seed4"
    found = json.loads((analysed.directory / "analysis.json").read_text())["parts"]["calibration"]
    (expected,) = (
        of["record"]["temperature"]
        for of in found["runs"]
        if (of["arm"], of["seed"]) == ("wide", 4)
    )
    assert (
        main(["report", str(copy.file), "--workdir", str(run), "--dataset", str(copy.images)]) == 0
    )
    (arm,) = data_of(run)["arms"]
    assert arm["temperature"] == pytest.approx(expected)
    assert "Confidences are calibrated" in (run / "report.html").read_text()


def test_what_is_missing_is_one_line(trained, tmp_path, quick, monkeypatch):
    copy = trained.copy(tmp_path / "study")
    words = ["report", "--workdir", str(copy.directory), "--dataset", str(copy.images)]
    assert main(words) == 0
    assert "needs the experiment file width.py; give it after the command" in reason_of(
        copy.directory
    )
    assert main([*words, "--no-demo"]) == 0
    assert "Ask the network" not in (copy.directory / "report.html").read_text()
    assert main([*words, str(copy.file)]) == 0
    assert reason_of(copy.directory) is None
    with monkeypatch.context() as patch:
        patch.setattr(report_page, "LARGEST_PAGE", 10_000)
        assert main([*words, str(copy.file)]) == 0
    assert reason_of(copy.directory).startswith("with the networks it would have 0.")
    for path in copy.directory.glob("wide/*/checkpoints"):
        path.rename(path.with_name("gone"))
    assert main([*words, str(copy.file)]) == 0
    assert "holds no checkpoint of a run" in reason_of(copy.directory)
