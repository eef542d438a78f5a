"""Sections that an analysis adds to a page."""

import json
from dataclasses import dataclass, field

from cifar_jax.report.study_figures import StudyFigure
from cifar_jax.report.tables import Table


@dataclass(frozen=True)
class Heatmap:
    """A square map of values. The HTML page shows the value under the pointer.

    Attributes:
        title: a few words.
        unit: of the values.
        span: both coordinates go from -span to span.
        limits: values of the first and the last colour, above 0; the scale is logarithmic.
        values: by row, the lowest first. None: not finite.
    """

    title: str
    unit: str
    span: float
    limits: tuple[float, float]
    values: tuple[tuple[float | None, ...], ...]

    @property
    def data(self) -> str:
        """The numbers as JSON, without any text of the user."""
        return json.dumps([self.span, *self.limits, self.values], separators=(",", ":"))


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: of the section.
        sentences: what the numbers mean.
        figures, tables: in their order.
        heatmaps: after the figures, only on the HTML page.
    """

    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[StudyFigure, ...] = ()
    tables: tuple[Table, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()


@dataclass(frozen=True)
class Analysed:
    """What an analysis adds to a study's page and model cards.

    Attributes:
        sections: of the page.
        cards: lines for the model card of each arm.
        covered: entries of `model_card.UNMEASURED` that were measured.
    """

    sections: tuple[Section, ...] = ()
    cards: dict[str, list[str]] = field(default_factory=dict)
    covered: frozenset[str] = frozenset()


NOTHING = Analysed()
