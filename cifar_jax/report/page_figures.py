"""Draw the figures of a page, and embed them in it."""

import base64
import dataclasses
import io
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from cifar_jax.report.drawing import Drawn, render
from cifar_jax.report.figures import reason
from cifar_jax.report.section import Section
from cifar_jax.report.study_figures import StudyFigure

T = TypeVar("T")
Warn = Callable[[str], None]


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it. The defaults are of a figure that could not be drawn.

    Attributes:
        figure: its title and caption, or the reason why it is missing.
        png: path of its file, relative to the page; empty if it is only in the page.
        uri: its pixels as a `data:` URI.
        width, height: in pixels.
    """

    figure: StudyFigure
    png: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class PageSection:
    """A section as the page shows it. `section` has its title, sentences and tables."""

    section: Section
    figures: list[PageFigure]


def embed(figure: StudyFigure, picture: Image.Image, png: str = "") -> PageFigure:
    """Embed a figure in the page, from its pixels. `png` is the path of its file.

    The page has the pixels as lossless WebP, of half the size.
    """
    small = io.BytesIO()
    picture.save(small, "WEBP", lossless=True, method=1, quality=0)
    uri = "data:image/webp;base64," + base64.b64encode(small.getvalue()).decode()
    return PageFigure(figure, png, uri, *picture.size)


def draw_each(
    figures: Iterable[StudyFigure],
    finish: Callable[[StudyFigure, Drawn], PageFigure],
    warn: Warn,
    svg: bool = False,
) -> list[PageFigure]:
    """Draw figures. If one fails, put the reason into the page and warn.

    A second thread finishes a figure while the next one is drawn: encoding holds no lock of Python.

    Args:
        figures: in the page's order.
        finish: makes what the page shows, of the rendered figure.
        warn: called with a line for each figure that could not be drawn.
        svg: see `render`.
    """

    def attempt(figure: StudyFigure, call: Callable[[], T]) -> T | PageFigure:
        try:
            return call()
        except Exception as error:
            why = reason(error)
            problem = f"warning: figure {figure.stem} could not be drawn ({why})"
            warn(f"{problem}; the numbers are complete")
            failed = f"It could not be drawn: {why}."
            return PageFigure(dataclasses.replace(figure, build=None, reason=failed))

    def rendered(figure: StudyFigure) -> Drawn | PageFigure:
        build = figure.build
        if build is None:
            return PageFigure(figure)
        return attempt(figure, lambda: render(build, svg))

    def finished(figure: StudyFigure, found: Drawn | PageFigure) -> PageFigure:
        if isinstance(found, PageFigure):
            return found
        return attempt(figure, lambda: finish(figure, found))

    with ThreadPoolExecutor(1) as second:
        futures = [second.submit(finished, figure, rendered(figure)) for figure in figures]
        return [future.result() for future in futures]


def draw_all(
    figures: Sequence[StudyFigure],
    sections: Sequence[Section],
    draw: Callable[[Iterable[StudyFigure]], list[PageFigure]],
) -> tuple[list[PageFigure], list[PageSection], float]:
    """Draw a page's figures and those of its sections. Also return the seconds that it took."""
    begun = time.perf_counter()
    all_figures = [*figures, *(figure for section in sections for figure in section.figures)]
    drawn = iter(draw(all_figures))
    shown = list(itertools.islice(drawn, len(figures)))
    added = [
        PageSection(section, list(itertools.islice(drawn, len(section.figures))))
        for section in sections
    ]
    return shown, added, time.perf_counter() - begun
