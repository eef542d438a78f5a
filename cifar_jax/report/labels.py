"""Find fonts for the text in figures, and fit its length.

Matplotlib's font lacks, for example, Chinese and Japanese. Installed fonts supply these characters.
If no font has a character of a class's name, figures show the class's number.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text as Drawn
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from cifar_jax.errors import printable

BASE_FONT = "DejaVu Sans"
MOST_NAMED = 40  # classes; more names on an axis would be too small
LONGEST_NAME = 16  # columns of a terminal; a Chinese character takes two
# Fonts whose glyphs for all characters mean "no such character".
_NO_FONTS = ("Last Resort", "LastResort", "Adobe Blank", "Unicode BMP Fallback")

# Cache: the font of each character; None if no installed font has it.
_font_of: dict[str, str | None] = {}


def _listed() -> Iterator[str]:
    """Yield the files of Matplotlib's list of fonts: its own, then plain ones, by name."""
    skipped = (BASE_FONT, *_NO_FONTS)
    found = [e for e in font_manager.fontManager.ttflist if not e.name.startswith(skipped)]

    def order(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str]:
        unusual = any(word in entry.name for word in ("Serif", "Mono", "Math"))
        regular = str(entry.weight) in ("400", "normal", "regular")
        return entry.style != "normal", unusual, not regular, entry.name

    yield str(font_manager.findfont(BASE_FONT))
    for entry in sorted(found, key=order):
        yield entry.fname


def _unlisted() -> Iterator[str]:
    """Yield the files of the fonts that were installed after Matplotlib made its list."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    yield from sorted(set(font_manager.findSystemFonts()) - known)


def _look_up(text: str) -> None:
    """Find the fonts of new characters, in the order of the fonts."""
    wanted = {c for c in text if c not in _font_of and not c.isspace()}
    for path in itertools.chain(_listed(), _unlisted()) if wanted else ():
        try:
            font = FT2Font(path)
            covered = {c for c in wanted if ord(c) in font.get_charmap()}
            name = font.family_name
            if covered and not any(e.name == name for e in font_manager.fontManager.ttflist):
                font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, NotImplementedError):  # Removed, damaged or bitmap font.
            continue
        if not name.startswith(_NO_FONTS):
            _font_of.update(dict.fromkeys(covered, name))
            wanted -= covered
        if not wanted:
            break
    _font_of.update(dict.fromkeys(wanted))


def not_drawn(texts: Iterable[str]) -> str:
    """Return the characters that no installed font has, each once, sorted."""
    text = "".join(texts)
    _look_up(text)
    return "".join(sorted({c for c in text if not c.isspace() and _font_of[c] is None}))


def drawable(text: str) -> str:
    r"""Return `text` with escapes such as `\u732b` for characters that no installed font has."""
    text = printable(text)
    absent = not_drawn([text])
    return "".join(c.encode("unicode_escape").decode() if c in absent else c for c in text)


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a name to `longest` columns of drawable characters."""
    name = drawable(name)
    if cell_len(name) <= longest:
        return name
    return set_cell_size(name, longest - 1).rstrip() + "…"


def class_names(classes: Sequence[str]) -> list[str]:
    """Return short names of classes, or `class 3` (from 0) for a name that no font can draw."""
    _look_up("".join(classes))
    return [
        f"class {number}" if not_drawn([printable(name)]) else short_name(name)
        for number, name in enumerate(classes)
    ]


def font_warning(texts: Iterable[str]) -> str:
    """Return one line about characters that no font has, or ""."""
    absent = not_drawn(printable(text) for text in texts)
    if not absent:
        return ""
    some = absent[:10] + "…" * (len(absent) > 10)
    return (
        f"no installed font has the characters {some}: figures show class numbers instead of those "
        "names; install a font with them, for example Noto Sans CJK"
    )


def wrapped(title: str, columns: int) -> str:
    """Wrap a title to lines of `columns` characters, counted as on a terminal."""
    lines = Text(drawable(title)).wrap(Console(width=columns), columns)
    return "\n".join(line.plain.rstrip() for line in lines)


def _texts(artist: Artist) -> Iterator[Drawn]:
    """Yield the texts in an artist. An axis of hidden axes would first make its ticks."""
    if isinstance(artist, Drawn):
        yield artist
    for child in artist.get_children():
        if not isinstance(child, Axis) or child.axes.axison:
            yield from _texts(child)


def use_fonts(figure: Figure) -> None:
    """Set the fonts that the characters of a figure's text need."""
    drawn = list(_texts(figure))
    text = "".join(artist.get_text() for artist in drawn)
    _look_up(text)
    fonts = dict.fromkeys(_font_of.get(c) for c in text)
    families = [BASE_FONT, *(name for name in fonts if name not in (None, BASE_FONT))]
    if len(families) == 1:
        return
    # Matplotlib would warn that such a font has no normal weight.
    logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)
    for artist in drawn:
        artist.set_fontfamily(families)
    for axes in figure.axes:
        axes.tick_params(labelfontfamily=families)


def name_classes(axes: Axes, which: str, names: Sequence[str], inches: float) -> None:
    """Name the classes along an axis. Of more than 40, number a few.

    Args:
        axes: with the classes at positions 0, 1, ...
        which: "x" or "y".
        names: of all classes, see `class_names`.
        inches: length of the axis, which determines the font size.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    if len(names) > MOST_NAMED:
        axis.set_major_locator(MaxNLocator(8, integer=True))
        return
    size = max(4.5, min(8.5, 0.85 * 72 * inches / len(names)))
    axis.set_ticks(range(len(names)), names, fontsize=size)
    if which == "x":
        for label in axis.get_ticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
