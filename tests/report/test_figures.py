"""Figures of one run: of limited size, readable, and never worth more than the results."""

import tracemalloc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from fake_study import CLASSES, history
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cifar_jax.report import figures, labels, matrix
from cifar_jax.report.drawing import render, styled
from cifar_jax.runner.results import EpochRow

TITLE = "folder-some long name of a folder, cnn, norm batch, seed 42: test accuracy 50.00 %"


def rows(epochs):
    """A history."""
    return [EpochRow(**row) for row in history(1, True, epochs, 100)]


def confusion(n):
    """Most images right."""
    return np.eye(n, dtype=np.int64) * 5 + np.random.default_rng(0).integers(0, 2, (n, n))


@pytest.fixture
def own_fonts_only(monkeypatch):
    """A machine that has no fonts but Matplotlib's."""
    own = [e for e in font_manager.fontManager.ttflist if "mpl-data" in e.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    monkeypatch.setattr(labels, "_font_of", {})


def test_a_matrix_of_a_thousand_classes_takes_little_memory():
    names = [f"kind {number}" for number in range(1000)]
    tracemalloc.start()
    drawn = render(lambda: figures.confusion_matrix(confusion(1000), names, TITLE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert max(drawn.picture.size) <= 1820


@pytest.mark.parametrize(
    ("n", "named", "counted"), [(2, 2, 4), (20, 20, 400), (40, 40, 0), (41, 0, 0), (100, 0, 0)]
)
def test_names_and_counts_are_there_where_they_can_be_read(n, named, counted):
    names = [f"kind {number}" for number in range(n)]
    axes = figures.confusion_matrix(confusion(n), names, TITLE).axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert sum(text in names for text in shown) == named
    assert len(shown) <= 40
    cells = [artist for artist in axes.artists if isinstance(artist, matrix.Cells)]
    assert sum(len(artist.entries) for artist in cells) == counted
    assert ("number" in axes.get_ylabel()) == (named == 0)


@pytest.mark.parametrize("n", [2, 10, 100])
def test_titles_are_not_cut(n):
    with styled():
        drawn = [
            figures.confusion_matrix(confusion(n), [f"kind {i}" for i in range(n)], TITLE),
            figures.training_curves(rows(n), TITLE * 2),
        ]
        for figure in drawn:
            FigureCanvasAgg(figure).draw()
    for figure in drawn:
        extent = figure._suptitle.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.x1


def test_a_block_shows_its_extreme_value():
    values = np.zeros((1000, 1000))
    values[17, 421], values[500, 3] = 60, -70
    values[999] = np.nan
    cells, k = matrix.blocks(values)
    assert (len(cells), k) == (250, 4)
    assert cells[17 // 4, 421 // 4] == 60
    assert cells[500 // 4, 0] == -70
    assert (np.count_nonzero(np.nan_to_num(cells)), np.isnan(cells).sum()) == (2, 0)
    assert np.array_equal(matrix.blocks(values[:250, :250])[0], values[:250, :250])


def results(classes):
    return SimpleNamespace(
        dataset=SimpleNamespace(classes=classes), history=rows(3), test_accuracy=0.5
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "out of memory"), (ValueError("odd"), "odd"), (OSError(28, "Full"), "Full")],
)
def test_a_figure_that_fails_is_one_line(tmp_path, monkeypatch, error, reason):
    def fail(*_):
        raise error

    monkeypatch.setattr(figures, "confusion_matrix", fail)
    (line,) = figures.draw_run(tmp_path, results(CLASSES), confusion(10), TITLE)
    assert line.startswith("warning: ")
    assert "confusion_matrix.png: could not be drawn" in line
    assert reason in line
    assert [path.name for path in tmp_path.iterdir()] == ["training_curves.png"]


def test_characters_that_no_font_has_become_numbers_and_one_line(tmp_path, own_fonts_only):
    classes = ["猫", "dog", "犬", "bird"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = figures.draw_run(tmp_path, results(classes), confusion(4), "動物, cnn")
    assert len(lines) == 1
    assert "no installed font has the characters 動物犬猫" in lines[0]
    axes = figures.confusion_matrix(confusion(4), classes, "動物").axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["class 0", "dog", "class 2", "bird"]
    assert axes.figure.get_suptitle() == r"\u52d5\u7269"


def test_a_font_that_has_the_character_is_found(tmp_path, own_fonts_only, caplog):
    """`ᶁ` is not in Matplotlib's own font; another that comes with it has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figures.draw_run(tmp_path, results(["ᶁ", "b"]), confusion(2), "ᶁ") == []
    assert caplog.records == []
    figure = figures.confusion_matrix(confusion(2), ["ᶁ", "b"], "t")
    labels.use_fonts(figure)
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == "ᶁ"
    assert label.get_fontfamily()[0] == "DejaVu Sans"
    assert len(label.get_fontfamily()) == 2


def test_a_font_installed_after_matplotlib_made_its_list_is_found(own_fonts_only, monkeypatch):
    stix = [e for e in font_manager.fontManager.ttflist if e.name.startswith("STIX")]
    others = [e for e in font_manager.fontManager.ttflist if e.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [e.fname for e in stix])
    assert labels.not_drawn(["ᶁ"]) == ""


@pytest.mark.parametrize("name", ["a" * 30, "猫" * 30, "\u202ereversed and very long name"])
def test_names_are_cut_by_their_width_and_printable(name, own_fonts_only):
    from rich.cells import cell_len

    assert cell_len(labels.short_name(name)) <= 16
    assert labels.short_name(name).isprintable()


def test_a_font_file_that_is_gone_is_passed_over(own_fonts_only, monkeypatch):
    gone = font_manager.FontEntry(fname="/nowhere/gone.ttf", name="Aaa")
    own = font_manager.fontManager.ttflist
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [gone, *own])
    assert labels.not_drawn(["猫", "a"]) == "猫"
    assert labels.font_warning(["plain"]) == ""
