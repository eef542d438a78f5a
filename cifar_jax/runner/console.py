"""Print a run's messages and progress: bars on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cifar_jax.errors import printable
from cifar_jax.runner.results import EpochRow
from cifar_jax.storage import name_in_errors

PLAIN_INTERVAL = 10.0  # seconds between plain progress lines
# Of more than MOST_LINES classes, only the best and the worst are shown.
MOST_LINES, EXTREME_LINES = 40, 10


def duration(seconds: float) -> str:
    """Format seconds as `h:mm:ss` or `m:ss`."""
    minutes, remaining = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{remaining:02d}" if hours else f"{minutes}:{remaining:02d}"


def epoch_line(row: EpochRow, last: int, seconds_left: float) -> str:
    """Format an epoch's row of the history as one line."""
    width = len(str(last))
    return (
        f"epoch {row.epoch:{width}d}/{last}"
        f"  train loss {row.train_loss:.4f} acc {100 * row.train_accuracy:5.2f} %"
        f"  val loss {row.val_loss:.4f} acc {100 * row.val_accuracy:5.2f} %"
        f"  lr {row.learning_rate:.3g}"
        f"  {row.images_per_second:,.0f} images/s  ETA {duration(seconds_left)}"
    )


def class_lines(classes: Sequence[str], accuracy: Sequence[float]) -> list[str]:
    """Return a line for each class. Of more than 40 classes, show the ten best and ten worst.

    Args:
        classes: their names.
        accuracy: fractions, NaN for a class without images.
    """
    order = list(range(len(classes)))
    between = len(order) - 2 * EXTREME_LINES
    if len(order) > MOST_LINES:
        order.sort(key=lambda i: (math.isnan(accuracy[i]), -accuracy[i]))
        order = order[:EXTREME_LINES] + order[-EXTREME_LINES:]
    names = {i: printable(classes[i]) for i in order}
    width = max(map(cell_len, names.values()))
    lines = [f"  {set_cell_size(names[i], width)}  {100 * accuracy[i]:6.2f} %" for i in order]
    if len(classes) > MOST_LINES:
        lines.insert(EXTREME_LINES, f"  ... {between:,} classes between")
    return lines


@dataclass
class Display:
    """Messages and progress of one run.

    Attributes:
        console: output, by default standard output.
    """

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    _progress: Progress | None = None
    _task: TaskID | None = None
    _described: str = ""
    _last_plain: float = 0.0

    def say(self, text: str) -> None:
        """Print one line as it is: `[red]` is no markup, control characters are escaped."""
        with name_in_errors("standard output"):
            self.console.print(printable(text), markup=False, emoji=False)

    def banner(self, text: str) -> None:
        """Print a text in a red frame."""
        panel = Panel(
            Text(printable(text)), title="ATTENTION", border_style="bold red", style="bold"
        )
        self.console.print(panel, soft_wrap=False)

    def progress(
        self,
        description: str,
        done: float,
        total: int,
        *,
        plain: bool = True,
        left: float | None = None,
    ) -> None:
        """Show that `done` of `total` are done. A new description starts a new bar.

        Args:
            done: may have a fraction.
            plain: print lines if there is no terminal for a bar.
            left: estimated seconds to the end; None if unknown.
        """
        eta = "" if left is None else f"ETA {duration(left)}"
        if description != self._described:
            self.end_progress()
            self._described = description
        if self.console.is_terminal:
            self._bar(description, done, total, eta)
        elif plain:
            now = time.monotonic()
            if done >= total or now - self._last_plain > PLAIN_INTERVAL:
                self._last_plain = now
                ending = f", {eta}" if eta and done < total else ""
                self.say(f"{description}: {int(done):,} of {total:,}{ending}")
        if done >= total:
            self.end_progress()

    def _bar(self, description: str, done: float, total: int, eta: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[eta]}"),
                console=self.console,
            )
            self._progress.start()
            self._task = self._progress.add_task(description, total=total, eta=eta)
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total, eta=eta)

    def end_progress(self) -> None:
        """Remove the current bar."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None
        self._described = ""
