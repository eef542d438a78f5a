"""A page in Chromium: contents, anchors, sorted tables, large figures, a phone, paper."""

import base64
import json

import pytest
from PIL import Image

from cifar_jax.report.page import render_page
from cifar_jax.report.page_figures import embed
from cifar_jax.report.study_figures import StudyFigure
from cifar_jax.report.tables import Table

TITLE = 'Each <run> & "more"'
CELLS = {
    "b 10": ("1,234 s", "+0.90 to +3.77", "0.02"),
    "b 9": ("–", "-2.00 to -1.00", "< 0.0001"),  # noqa: RUF001 - an en dash
    "a": ("-2.5 ± 1.0 s", "–", "0.0001"),  # noqa: RUF001
    "c": ("900 s", "-9.00 to +13.00", "–"),  # noqa: RUF001
    "d": ("1e-05 s", "+1.00 to +2.00", "0.5"),
}


def picture(number):
    pixels = Image.new("RGB", (832, 500 + 600 * number), "red")
    return embed(StudyFigure("f", f"Picture {number}", "a caption", None), pixels)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with tables, two figures, and enough text to scroll."""
    rows = [(name, *cells) for name, cells in CELLS.items()]
    wide = Table("Wide", "", [f"column {i}" for i in range(30)], [("x" * 9,) * 30] * 61)
    values = {
        "title": "A page",
        "headline": "An answer.",
        "notices": [],
        "main": Table("Main", "", ("", "mean"), [("one", "1"), ("two", "2"), ("three", "0")]),
        "figures": [picture(0), picture(1)],
        "tables": [Table(TITLE, "", ("name", "time", "interval", "p"), rows), wide],
        "facts": Table("Facts", "", ("", ""), [("a", "b" * 300)]),
        "command": "command",
    }
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(render_page("scores.html", values), encoding="utf-8")
    return page


@pytest.fixture
def opened(browser, path):
    """The page in a wide window; in the end without an error or a request."""
    browser.look(1280, 900, dark=False)
    browser.open(path)
    yield browser
    assert browser.console == []
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)


def names(browser):
    script = "[...document.querySelector('.sortable tbody').rows].map(r => r.cells[0].innerText)"
    return "".join(name[0] + name[2:] for name in browser.evaluate(script))


HEAD = "document.querySelectorAll('.sortable thead th')"


@pytest.mark.parametrize(
    ("column", "upwards", "downwards"),
    [
        (0, "ab9b10cd", "dcb10b9a"),
        (1, "adcb10b9", "b10cdab9"),
        (2, "b9dcb10a", "b10cdb9a"),
        (3, "b9ab10dc", "db10ab9c"),
    ],
    ids=["words", "numbers", "centres of intervals", "p-values"],
)
def test_a_click_sorts_a_table_and_a_dash_comes_last(opened, column, upwards, downwards):
    for direction, order in (
        ("ascending", upwards),
        ("descending", downwards),
        (None, "b10b9acd"),
    ):
        opened.evaluate(f"{HEAD}[{column}].querySelector('[role=button]').click()")
        assert names(opened) == order
        sort = opened.evaluate(f"[...{HEAD}].slice(0, 4).map(h => h.getAttribute('aria-sort'))")
        assert sort == [direction if i == column else None for i in range(4)]


def test_a_key_sorts_a_table(opened):
    opened.evaluate(f"{HEAD}[1].querySelector('[role=button]').focus()")
    opened.press(" ", 32)
    assert names(opened) == "adcb10b9"
    opened.press("Tab", 9)
    opened.press("Enter", 13)
    assert names(opened) == "b9dcb10a"


def test_the_main_table_keeps_its_order(opened):
    """Its rows have different units."""
    assert opened.evaluate("document.querySelectorAll('.main [role=button]').length") == 0


def test_contents_lead_to_every_heading_and_figure(opened):
    links = opened.evaluate(
        "[...document.querySelectorAll('.contents a')].map(a => [a.innerText, a.hash])"
    )
    targets = opened.evaluate(
        "[...document.querySelectorAll('h2, h3, figure')].map(e => '#' + e.id)"
    )
    assert [anchor for _, anchor in links] == targets
    assert len(set(targets)) == len(targets) == 9
    assert [TITLE, "#each-run-more"] in links
    beside = "[...document.querySelectorAll('.anchor')].map(a => a.getAttribute('href'))"
    assert opened.evaluate(beside) == targets
    opened.evaluate("document.querySelector('.contents a[href=\"#how-to-repeat-it\"]').click()")
    opened.wait("document.getElementById('how-to-repeat-it').getBoundingClientRect().top < 900")
    opened.wait("document.querySelector('.contents [aria-current]').hash === '#how-to-repeat-it'")
    top = "document.querySelector('.contents').getBoundingClientRect().top"
    assert 0 <= opened.evaluate(top) < 100


LARGE = "document.querySelector('dialog[open] b')?.innerText ?? ''"


def test_a_figure_opens_large_and_escape_closes_it(opened):
    opened.evaluate("document.querySelectorAll('.enlarge')[1].focus()")
    opened.press(" ", 32)
    assert opened.evaluate(LARGE) == "Figure 2. Picture 1."
    assert opened.evaluate("document.querySelector('dialog img').width") > 1000
    opened.press("ArrowRight", 39)
    assert opened.evaluate(LARGE) == "Figure 1. Picture 0."
    opened.press("Escape", 27)
    opened.wait(f"!({LARGE})")
    assert opened.evaluate("document.activeElement.ariaLabel") == "Enlarge Figure 2. Picture 1."
    opened.evaluate("document.querySelector('figure img').click()")
    assert opened.evaluate(LARGE) == "Figure 1. Picture 0."


def test_a_phone_scrolls_tables_but_not_the_page(browser, path):
    browser.look(390, 800, dark=True)
    browser.open(path)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    boxes = "[...document.querySelectorAll('.wide')].map(e => e.getBoundingClientRect().right)"
    assert max(browser.evaluate(boxes)) <= 390
    assert browser.evaluate(
        "[...document.querySelectorAll('.wide')].some(e => e.scrollWidth > e.clientWidth)"
    )
    shown = "document.querySelector('.contents ol').checkVisibility()"
    assert not browser.evaluate(shown)
    browser.evaluate("document.querySelector('.contents summary').click()")
    assert browser.evaluate(shown)
    browser.evaluate("document.querySelector('.contents a').click()")
    browser.wait(f"!{shown}")
    browser.evaluate("document.querySelector('.enlarge').click()")
    assert browser.evaluate("document.querySelector('dialog img').width") == 832
    assert browser.evaluate("document.documentElement.scrollWidth") == 390


def test_paper_has_no_controls_and_all_rows(opened):
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.call("Emulation.setEmulatedMedia", media="print")
    try:
        hidden = opened.evaluate(
            "['.contents', '.anchor', '.enlarge'].map(s => "
            "[...document.querySelectorAll(s)].filter(e => e.checkVisibility()).length)"
        )
        assert hidden == [0, 0, 0]
        assert opened.evaluate("document.querySelector('.long table').checkVisibility()")
        # Chromium does not repeat these on the next page.
        assert opened.evaluate("document.querySelectorAll('thead button').length") == 0
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert opened.evaluate(style.format(".wide", "overflowX")) == "visible"
        assert opened.evaluate(style.format("figure", "breakInside")) == "avoid"
        assert opened.evaluate(style.format("tr", "breakInside")) == "avoid"
    finally:
        opened.call("Emulation.setEmulatedMedia", media="")
    assert base64.b64decode(opened.call("Page.printToPDF")["data"]).startswith(b"%PDF")


def test_the_first_paint_is_early(opened):
    """From disk; 3 s is the limit."""
    opened.wait("performance.getEntriesByName('first-contentful-paint').length")
    paint = "JSON.stringify(performance.getEntriesByName('first-contentful-paint')[0])"
    assert json.loads(opened.evaluate(paint))["startTime"] < 3000
