"""The headings of a page, each with an anchor, for its table of contents."""

import re
from dataclasses import dataclass, field


@dataclass
class Heading:
    """A heading, and the headings and figures below it."""

    title: str
    anchor: str
    below: list["Heading"] = field(default_factory=list)


class Contents:
    """The headings of one page, in the order in which its template writes them."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self._anchors: set[str] = set()

    def add(self, title: str, level: int = 2, anchor: str = "") -> str:
        """Add a heading.

        Args:
            title: its text.
            level: 2, or 3 for one below the last of level 2.
            anchor: its id; by default made from the title.

        Returns:
            The id, which no other heading of the page has.
        """
        words = anchor or re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        found, number = words, 1
        while found in self._anchors:
            number += 1
            found = f"{words}-{number}"
        self._anchors.add(found)
        heading = Heading(title, found)
        of = self.headings if level == 2 or not self.headings else self.headings[-1].below
        of.append(heading)
        return found
