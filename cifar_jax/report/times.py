"""Make the table of where the time of runs went."""

from collections.abc import Mapping

from cifar_jax.report.tables import Table
from cifar_jax.report.text import percent

WORDS = {
    "data": "loading the images",
    "compiling": "start and compiling",
    "training": "training, in compiled programs",
    "writing": "between the programs: rows, lines, checkpoints",
    "evaluation": "test images and the last checkpoint",
}


def time_table(spent: Mapping[str, float], drawing: float, note: str = "") -> Table:
    """Return a table of seconds and shares.

    Args:
        spent: seconds by the fields of `results.Spent`; empty if they are unknown.
        drawing: seconds of drawing the page's figures.
        note: text above the table.
    """
    seconds = {words: spent[key] for key, words in WORDS.items() if key in spent}
    if seconds:
        seconds["drawing the figures of this page"] = drawing
        seconds["all"] = sum(seconds.values())
    rows = [
        (words, f"{value:,.1f} s", percent(value / max(seconds["all"], 1e-9), 1))
        for words, value in seconds.items()
    ]
    return Table("Where time went", note, ("", "time", "share"), rows)
