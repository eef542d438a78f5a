"""Sections that an analysis adds to a page."""

from dataclasses import dataclass, field

from cifar_jax.report.study_figures import StudyFigure
from cifar_jax.report.tables import Table


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: of the section.
        sentences: what the numbers mean.
        figures, tables: in their order.
    """

    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[StudyFigure, ...] = ()
    tables: tuple[Table, ...] = ()


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
