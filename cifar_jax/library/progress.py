"""A progress bar on a terminal or in a notebook, and nothing elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from cifar_jax.runner.console import Display

Show = Callable[[str, float, int], None]

_WIDTH = 40  # of a notebook's bar, in characters


class _Cell:
    """A bar in a notebook's cell. It needs no widgets."""

    def __init__(self) -> None:
        self.handle: Any = None

    def __call__(self, description: str, done: float, total: int, /) -> None:
        from IPython.display import Pretty, display

        full = int(_WIDTH * done / total)
        bar = "━" * full + " " * (_WIDTH - full)
        text = Pretty(f"{description} |{bar}| {int(done):,} of {total:,}")
        if self.handle is None:
            self.handle = display(text, display_id=True)
        else:
            self.handle.update(text)


def _nothing(description: str, done: float, total: int, /) -> None:
    """Show nothing."""


@contextlib.contextmanager
def progress_bar(shown: bool = True, console: Console | None = None) -> Iterator[Show]:
    """Give a function that shows that `done` of `total` are done.

    Args:
        shown: whether it shows anything.
        console: the terminal; by default that of standard error.
    """
    console = console or Console(stderr=True)
    if not shown or console.is_jupyter:
        yield _Cell() if shown else _nothing
        return
    display = Display(console)

    def show(description: str, done: float, total: int, /) -> None:
        display.progress(description, done, total, plain=False)

    try:
        yield show
    finally:
        display.end_progress()
