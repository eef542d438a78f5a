"""Read a table of text that another program wrote: CSV or JSON lines.

Everything is checked: it may be a downloaded file.
"""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cifar_jax.errors import UserError, counted, one_line, shown
from cifar_jax.inputs import read_bytes

LARGEST = 16 << 20  # bytes
MOST_ROWS, MOST_COLUMNS = 100_000, 20_000


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        path: of its file.
        head: names of the columns.
        numbers: of the rows in the file, the first row is 1.
        column: returns the cells of a column by its position.
    """

    path: Path
    head: tuple[str, ...]
    numbers: Sequence[int]
    column: Callable[[int], list[str]]

    def wrong(self, row: int, what: str) -> UserError:
        return UserError(f"{self.path}: row {self.numbers[row]}: {what}")


def _text(path: Path) -> str:
    """Read a file as text: UTF-8, or UTF-16 with its mark.

    Raises:
        UserError: it cannot be read, or is not such text.
    """
    try:
        content = read_bytes(path, LARGEST)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: row {row}: is not UTF-8 text; save the table as UTF-8") from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}: row {row}: has a null character, so it is not a text table")
    if not text.strip():
        raise UserError(f"{path}: is empty; it needs a header line and one row per run")
    return text


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each row that is not blank. The comma may be `;` or a tab."""
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, 1):
            if any(cells):
                yield number, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(f"{path}: row {number + 1}: is not CSV: {one_line(error)}") from None


def _csv(path: Path, text: str) -> Table:
    rows = _csv_rows(path, text)
    top, head = next(rows, (1, []))
    if len(head) > MOST_COLUMNS:
        raise UserError(f"{path}: has {len(head):,} columns; at most {MOST_COLUMNS:,} are allowed")
    found = list(islice(rows, MOST_ROWS + 1))
    for number, cells in found:
        if len(cells) != len(head):
            raise UserError(
                f"{path}: row {number}: has {counted(len(cells), 'cell')}, but the head in row "
                f"{top} has {len(head):,}"
            )
    table = [cells for _, cells in found]
    numbers = [number for number, _ in found]
    return Table(path, tuple(head), numbers, lambda at: [cells[at] for cells in table])


def _cell(value: Any) -> str:
    """Return a JSON value as the text of a cell."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _flat(found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and cells of an object; `{"config": {"seed": 1}}` has `config.seed`."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _cell(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {shown(twice)} is given twice")
    return found


def _json(path: Path, text: str) -> Table:
    rows, numbers = [], []
    head: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=_once)
            if not isinstance(found, dict):
                raise ValueError("it is not an object")
            row = dict(_flat(found))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}: row {number}: is not a line of JSON with one object: {one_line(error)}"
            ) from None
        rows.append(row)
        numbers.append(number)
        head |= dict.fromkeys(row)
        if len(head) > MOST_COLUMNS:
            raise UserError(f"{path}: has more than {MOST_COLUMNS:,} columns")
        if len(rows) > MOST_ROWS:
            break
    names = tuple(head)
    return Table(path, names, numbers, lambda at: [row.get(names[at], "") for row in rows])


def read_table(path: Path) -> Table:
    """Read a table. Its content says whether it is CSV, not its name.

    Raises:
        UserError: it cannot be read; the message says the row, and what is allowed.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        raise UserError(
            f"{path}: is a JSON array; allowed: JSON lines, one object per line, or CSV"
        )
    found = (_json if text.lstrip().startswith("{") else _csv)(path, text)
    if any(name.endswith("__MIN") for name in found.head):
        raise UserError(f"{path}: is a chart of Weights & Biases; export its table of runs")
    if not found.numbers:
        raise UserError(f"{path}: has a header line, but no row")
    if len(found.numbers) > MOST_ROWS:
        raise UserError(f"{path}: has more than {MOST_ROWS:,} rows")
    return found
