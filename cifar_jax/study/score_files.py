"""Read scores from a table with one row per run.

A row without a score counts as a run without a result. It is left out and counted. So is a run that
Weights & Biases does not call finished.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cifar_jax.errors import UserError, counted, shown
from cifar_jax.inputs import is_name
from cifar_jax.study.score_tables import Table, read_table
from cifar_jax.study.scores import Scores

MOST_ARMS = 100
LARGEST_SCORE = 1e15
_MOST_LISTED = 8

# Names of columns, best first, of one meaning in a line. A table with two of the same line needs
# the flag.
ARM_NAMES = (
    "arm",
    "model method algorithm algo agent framework variant approach condition treatment config "
    "configuration setting optimizer optimiser activation norm architecture arch network",
    "group",
    "name",
)
SEED_NAMES = (
    "seed random_seed rng_seed",
    "trial run replicate replication repetition repeat rep",
)
METRIC_NAMES = (
    "test_accuracy test_acc",
    "accuracy acc",
    "test_score score",
    "episode_return return reward",
)
_PREFIX = re.compile("(config|configs|params|hparams|args|summary|metrics|results)_")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+\.0*", re.ASCII)


def _plain(name: str) -> str:
    """Return a column's name as `ARM_NAMES` has it: `config.Model` is `model`."""
    return _PREFIX.sub("", re.sub("[^a-z0-9]+", "_", name.lower()).strip("_"), count=1)


def _names(table: Table, columns: Sequence[int]) -> str:
    names = [shown(table.head[at]) for at in columns]
    return ", ".join(names[:10]) + f" and {len(names) - 10:,} more" * (len(names) > 10)


def _named(table: Table, name: str, flag: str) -> int:
    """Return the position of the column that a flag names."""
    at = [i for i, column in enumerate(table.head) if column == name]
    if not at:
        given = [i for i, column in enumerate(table.head) if column]
        raise UserError(
            f"{flag} {name}: {table.path} has no such column; it has {_names(table, given)}"
        )
    if len(at) > 1:
        raise UserError(f"{flag} {name}: {table.path} has {len(at)} columns of this name")
    return at[0]


def _guess(table: Table, ranks: Sequence[str], flag: str, fits: Callable[[int], bool]) -> int:
    """Return the position of the column with the best name; -1 if no column has a known one.

    Args:
        table: with the columns.
        ranks: names, best first, such as `ARM_NAMES`. A rank has one or more, between spaces.
        flag: that names the column instead.
        fits: whether the column at a position can be meant.

    Raises:
        UserError: several have names of the same rank.
    """
    plain = [_plain(name) for name in table.head]
    for rank in ranks:
        at = [i for i, name in enumerate(plain) if name in rank.split() and fits(i)]
        if len(at) == 1:
            return at[0]
        if at:
            raise UserError(
                f"{table.path}: several columns fit {flag}: {_names(table, at)}; name one with "
                f"{flag}"
            )
    return -1


def _varies(table: Table, at: int) -> bool:
    return len({cell for cell in table.column(at) if cell}) > 1


def _arm_column(table: Table, states: int) -> int:
    """Guess the column of the arms. The `Name` of Weights & Biases names a run."""
    names = ARM_NAMES if states < 0 else ARM_NAMES[:-1]
    for fits in (lambda at: _varies(table, at), lambda at: True):
        at = _guess(table, names, "--arm-column", fits)
        if at >= 0:
            return at
    texts = [
        i
        for i in range(len(table.head))
        if _varies(table, i) and not all(map(_NUMBER.fullmatch, filter(None, table.column(i))))
    ]
    fitting = f"columns of text: {_names(table, texts)}" if texts else "no column of text varies"
    raise UserError(
        f"{table.path}: no column has the name of an arm, such as model or method; name it with "
        f"--arm-column ({fitting})"
    )


def _metric_column(table: Table, taken: Sequence[int], states: int) -> int:
    """Guess the column of the scores: by its name, or the only one with numbers."""

    def numeric(at: int) -> bool:
        cells = {cell for cell in table.column(at) if cell}
        return len(cells) > 1 and all(
            _NUMBER.fullmatch(c) or _NOT_FINITE.fullmatch(c) for c in cells
        )

    free = [at for at in range(len(table.head)) if at not in taken and at != states]
    at = _guess(table, METRIC_NAMES, "--metric", lambda at: at in free)
    if at >= 0:
        return at
    numbers = [at for at in free if numeric(at)]
    if len(numbers) == 1:
        return numbers[0]
    if not numbers:
        raise UserError(f"{table.path}: no column has different numbers; name one with --metric")
    raise UserError(
        f"{table.path}: several columns have numbers: {_names(table, numbers)}; name one with "
        "--metric"
    )


def _columns(
    table: Table, arm: str | None, seed: str | None, metric: str | None, states: int
) -> tuple[int, int, int]:
    """Return the positions of arms, seeds and scores. -1: there is no seed column."""
    arms = _named(table, arm, "--arm-column") if arm else _arm_column(table, states)
    if seed:
        seeds = _named(table, seed, "--seed-column")
    else:
        seeds = _guess(table, SEED_NAMES, "--seed-column", lambda at: at != arms)
    if metric:
        scores = _named(table, metric, "--metric")
    else:
        scores = _metric_column(table, (arms, seeds), states)
    if len({arms, seeds, scores}) < 3:
        raise UserError(f"{table.path}: arm, seed and metric need three different columns")
    return arms, seeds, scores


def _score(table: Table, row: int, cell: str, metric: str) -> float:
    """Return a finite score.

    Raises:
        UserError: it is none.
    """
    if _NOT_FINITE.fullmatch(cell):
        raise table.wrong(
            row,
            f"{metric} is {cell}, not a finite number; leave the cell of a failed run empty, or "
            "give the run a score",
        )
    if not _NUMBER.fullmatch(cell):
        raise table.wrong(row, f"{metric} is {shown(cell)}, not a number such as 0.913")
    value = float(cell)
    if not math.isfinite(value) or abs(value) > LARGEST_SCORE:
        raise table.wrong(row, f"{metric} is {shown(cell)}, beyond {LARGEST_SCORE:g}")
    return value


def _seed(cell: str) -> str:
    """Return a seed as text: 1.0, as pandas writes it in a column with gaps, is 1."""
    return cell.partition(".")[0] if _WHOLE.fullmatch(cell) else cell


def _check_arm(table: Table, row: int, arm: str, found: dict[str, Any], column: str) -> None:
    if not is_name(arm):
        wrong = f"has no arm in column {shown(column)}" if not arm else f"{shown(arm)} is no name"
        raise table.wrong(row, wrong)
    if arm not in found and len(found) == MOST_ARMS:
        raise UserError(
            f"{table.path}: column {shown(column)} has more than {MOST_ARMS} arms; name another "
            "with --arm-column"
        )


def _twice(table: Table, row: int, before: int, what: str) -> UserError:
    """Return the error of two rows for one run. It names columns that differ between the rows."""
    differ = [
        at
        for at in range(len(table.head))
        if len({table.column(at)[number] for number in (row, before)}) > 1
    ]
    hint = f"; the rows differ in {_names(table, differ)}" if differ else ""
    return table.wrong(
        row, f"{what} is also in row {table.numbers[before]}; a table has one row per run{hint}"
    )


def read_scores(
    path: str | Path,
    arm_column: str | None = None,
    seed_column: str | None = None,
    metric: str | None = None,
) -> Scores:
    """Read a table with one row per run.

    Args:
        path: CSV with a header line, such as the export of Weights & Biases, or JSON lines.
        arm_column: name of the column of arms; None to guess.
        seed_column: name of the column of seeds; None to guess.
        metric: name of the column of scores; None to guess.

    Returns:
        The scores, by arm in the order of the file. Its notes say which columns were taken.

    Raises:
        UserError: the file cannot be used; the message says the row, and what is allowed.
    """
    path = Path(path)
    table = read_table(path)
    plain = [name.lower() for name in table.head]
    states = plain.index("state") if {"name", "state"} <= set(plain) else -1
    arms, seeds, scores = _columns(table, arm_column, seed_column, metric, states)
    name = table.head[scores]
    if not is_name(name):
        raise UserError(f"{path}: {shown(name)} is not a name of a metric")
    arm_cells, cells = table.column(arms), table.column(scores)
    seed_cells = table.column(seeds) if seeds >= 0 else [f"row {n}" for n in table.numbers]
    state_cells = table.column(states) if states >= 0 else ["finished"] * len(cells)
    found: dict[str, dict[str, float]] = {}
    first: dict[tuple[str, str], int] = {}
    skipped: Counter[str] = Counter()
    for row, (arm, seed, cell, state) in enumerate(
        zip(arm_cells, map(_seed, seed_cells), cells, state_cells, strict=True)
    ):
        if state.lower() != "finished":
            skipped[f"of {arm} whose state is {state}"] += 1
            continue
        if not cell:
            skipped[f"of {arm} without {name}"] += 1
            continue
        _check_arm(table, row, arm, found, table.head[arms])
        if not is_name(seed):
            raise table.wrong(row, f"has no seed in column {shown(table.head[seeds])}")
        if (arm, seed) in first:
            raise _twice(table, row, first[arm, seed], f"arm {shown(arm)} with seed {shown(seed)}")
        first[arm, seed] = row
        found.setdefault(arm, {})[seed] = _score(table, row, cell, name)
    return _scores(table, found, (arms, seeds, scores), skipped)


def _scores(
    table: Table,
    found: dict[str, dict[str, float]],
    columns: tuple[int, int, int],
    skipped: Counter[str],
) -> Scores:
    """Return the scores, and lines on what was taken and what was not."""
    arms, seeds, metric = (table.head[at] if at >= 0 else "" for at in columns)
    runs = sum(map(len, found.values()))
    left_out = [f"{counted(n, 'row')} {why}" for why, n in skipped.most_common(_MOST_LISTED)]
    if more := len(skipped) - len(left_out):
        left_out.append(f"{more:,} more kinds of rows")
    if not runs:
        raise UserError(f"{table.path}: no row can be used: {', '.join(left_out)}")
    notes = [
        f"{counted(runs, 'run')} of {counted(len(found), 'arm')}; column of the arm: {arms}; of "
        f"the seed: {seeds or 'none'}; of the score: {metric}"
    ]
    if left_out:
        notes.append(f"Left out: {', '.join(left_out)}. An arm may look too good without them.")
    values = [value for row in found.values() for value in row.values()]
    is_accuracy = _plain(metric).endswith(("accuracy", "acc"))
    return Scores(
        metric=metric,
        values=found,
        unit="%" if is_accuracy and 0 <= min(values) <= max(values) <= 1 else "",
        source=table.path.name,
        notes=tuple(notes),
        seeded=seeds != "",
    )
