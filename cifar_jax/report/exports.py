"""Write tables to use elsewhere: `runs.csv`, `table.tex` and `table.md`.

`runs.csv` has one row per run. The two tables have one row per arm: number of runs, mean, sample
standard deviation, difference to the control and its 95 % interval.
"""

import csv
import io
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_jax.errors import printable
from cifar_jax.names import RUNS, TABLE_TEX, TABLE_TEXT
from cifar_jax.report.text import NONE, change, markdown
from cifar_jax.storage import check_inside, write_text
from cifar_jax.study.collect import Study, SweepStudy
from cifar_jax.study.samples import run_metrics
from cifar_jax.study.scores import Row, Scores, table_rows

METRICS = ("test_accuracy", "test_loss", "val_accuracy", "train_seconds")
_MOST_DIGITS = 12
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


@dataclass(frozen=True)
class Block:
    """The rows of one study or comparison in a table.

    Attributes:
        title: of the study; heads its columns if there are several.
        note: what the numbers are.
        rows: one per arm, in the table's order.
        percent: whether the numbers are fractions, which the table has in per cent and points.
        digits: after the point.
    """

    title: str
    note: str
    rows: Sequence[Row]
    percent: bool = True
    digits: int = 2

    @property
    def scale(self) -> float:
        """Factor of all numbers."""
        return 100.0 if self.percent else 1.0

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads of the columns of `cells`."""
        mean, difference = (" [%]", " [points]") if self.percent else ("", "")
        return "n", f"mean{mean}", "std", f"difference{difference}", "95 % interval"

    def cells(self, row: Row) -> tuple[str, ...]:
        """Format the numbers of a row."""
        mean, std = (
            NONE if x is None else f"{self.scale * x:z.{self.digits}f}" for x in (row.mean, row.std)
        )
        gain = change(row.difference, self.scale, self.digits)
        ends = signed_interval(row.interval, self.scale, self.digits)
        return f"{row.n}", mean, std, gain, ends + " (unpaired)" * (not row.paired)


def signed_interval(ends: Sequence[float] | None, scale: float, digits: int) -> str:
    """Format the interval of a difference as `+low to +high`."""
    if ends is None:
        return NONE
    return " to ".join(change(end, scale, digits) for end in ends)


def digits_of(rows: Sequence[Row]) -> int:
    """Return how many digits show two of a typical standard deviation."""
    spreads = [row.std for row in rows if row.std]
    if spreads:
        wanted = 1 - math.floor(math.log10(statistics.median(spreads)))
    else:
        largest = max((abs(row.mean) for row in rows if row.mean), default=1.0)
        wanted = 3 - math.floor(math.log10(largest))
    return min(max(wanted, 0), _MOST_DIGITS)


def scores_block(summary: dict[str, Any]) -> Block:
    """Return the rows of a comparison of scores.

    Args:
        summary: from `cifar_jax.study.scores.compare_scores`.
    """
    rows, percent = table_rows(summary), summary["unit"] == "%"
    paired = {row["paired"] for row in summary["against_control"]}
    how = {(True,): "over pairs of seeds", (False,): "without pairs (Welch)"}
    text = how.get(tuple(paired), "over pairs of seeds, or without pairs (Welch) where it says so")
    return Block(
        summary["source"],
        f"{summary['metric']}: mean and standard deviation of n runs; difference to "
        f"{summary['control']} {text}.",
        rows,
        percent,
        2 if percent else digits_of(rows),
    )


def study_block(study: Study, summary: dict[str, Any]) -> Block:
    """Return the rows of a study's arms."""
    others = summary["against_first"]
    gains = {row["arms"][1]: row for row in others}
    against = study.label(others[0]["arms"][0]) if others else ""
    rows = [
        _row(study.label(arm), found["test_accuracy"], gains.get(arm))
        for arm, found in summary["per_arm"].items()
    ]
    note = "Test accuracy: mean and standard deviation of n runs"
    note += f"; difference to {against} over pairs of seeds." if against else "."
    return Block(study.workdir.resolve().name, note, rows)


def sweep_block(study: SweepStudy, summary: dict[str, Any]) -> Block:
    """Return a row for each arm at each value of a sweep.

    The difference is the gain at the same value, or with one arm that to the first value.
    """
    pair = summary["compared"]
    if pair:
        gains = {(pair[1], row["value"]): row for row in summary["gain"]}
        against = f"{summary['labels'][pair[0]]} at the same value"
    else:
        gains = {(row["arm"], row["value"]): row for row in summary["against_first_value"]}
        against = study.sweep.at(study.sweep.values[0])
    rows = [
        _row(
            f"{summary['labels'][cell['arm']]}, {study.sweep.at(cell['value'])}",
            cell["test_accuracy"],
            gains.get((cell["arm"], cell["value"])),
        )
        for cell in summary["cells"]
    ]
    note = f"Test accuracy: mean and standard deviation of n runs; difference to {against}."
    return Block(study.workdir.resolve().name, note, rows)


def _row(label: str, found: dict[str, Any], gain: dict[str, Any] | None) -> Row:
    row = Row(label, found["n"], found["mean"], found["std"])
    if gain is None:
        return row
    return row._replace(difference=gain["mean_difference"], interval=gain["ci_t"])


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in printable(text))


def _lines(blocks: Sequence[Block]) -> list[tuple[str, list[str]]]:
    """Return arm and cells of each line. An arm that a study lacks has empty cells there."""
    arms = dict.fromkeys(row.arm for block in blocks for row in block.rows)
    tables = [{row.arm: block.cells(row) for row in block.rows} for block in blocks]
    return [
        (arm, [cell for table in tables for cell in table.get(arm, ("",) * len(blocks[0].heads))])
        for arm in arms
    ]


def _number(cell: str) -> str:
    """Return a cell for LaTeX: numbers in math mode, so that a minus is one."""
    return re.sub(r"[+-]?\d[\d.]*", r"$\g<0>$", latex(cell).replace(NONE, "--"))


def table_tex(blocks: Sequence[Block]) -> str:
    """Return a LaTeX table, for the package booktabs."""
    width = len(blocks[0].heads)
    lines = ["% \\usepackage{booktabs}", *(f"% {printable(block.note)}" for block in blocks)]
    lines += [f"\\begin{{tabular}}{{l{'rrrrr' * len(blocks)}}}", "\\toprule"]
    if len(blocks) > 1:
        titles = [f"\\multicolumn{{{width}}}{{c}}{{{latex(block.title)}}}" for block in blocks]
        lines.append(f" & {' & '.join(titles)} \\\\")
        spans = [(2 + width * k, 1 + width * (k + 1)) for k in range(len(blocks))]
        lines.append(" ".join(f"\\cmidrule(lr){{{low}-{high}}}" for low, high in spans))
    heads = [latex(head) for block in blocks for head in block.heads]
    lines += [f" & {' & '.join(heads)} \\\\", "\\midrule"]
    lines += [
        f"{latex(arm)} & {' & '.join(map(_number, cells))} \\\\" for arm, cells in _lines(blocks)
    ]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def table_text(blocks: Sequence[Block]) -> str:
    """Return a Markdown table."""
    several = len(blocks) > 1
    heads = [
        f"{block.title}: {head}" if several else head for block in blocks for head in block.heads
    ]
    rows = [["", *heads], *([arm, *cells] for arm, cells in _lines(blocks))]
    lines = [f"| {' | '.join(map(markdown, row))} |" for row in rows]
    lines.insert(1, f"| --- |{' ---: |' * len(heads)}")
    notes = [f"{block.title}: {block.note}" if several else block.note for block in blocks]
    return "\n".join([*lines, "", *(f"{markdown(note)}\n" for note in notes)])


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return text.getvalue()


def scores_runs(scores: Scores) -> str:
    """Return `runs.csv` of scores."""
    rows = [(arm, seed, x) for arm, runs in scores.values.items() for seed, x in runs.items()]
    return _csv(("arm", "seed", scores.metric), rows)


def _study_rows(study: Study, swept: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return a row for each run of a study: finished, diverged or missing."""
    finished = {(run.arm, run.seed): run for row in study.runs.values() for run in row}
    rows = []
    for cell in ((arm, seed) for arm in study.arms for seed in study.seeds):
        run = finished.get(cell)
        if run is None:
            status = "diverged" if cell in study.diverged else "missing"
            rows.append((*cell, *swept, *[None] * (len(METRICS) + 1), status))
            continue
        found = run_metrics(run)
        metrics = [found[name] for name in METRICS]
        rows.append((*cell, *swept, *metrics, run.results.num_params, "finished"))
    return rows


def study_runs(study: Study | SweepStudy) -> str:
    """Return `runs.csv` of a study. A sweep has a column with the swept value."""
    last = (*METRICS, "num_params", "status")
    if isinstance(study, Study):
        return _csv(("arm", "seed", *last), _study_rows(study))
    rows = [
        row
        for value, at in zip(study.sweep.values, study.studies, strict=True)
        for row in _study_rows(at, [study.sweep.value_name(value)])
    ]
    return _csv(("arm", "seed", study.sweep.field, *last), rows)


def write_tables(workdir: Path, blocks: Sequence[Block], runs: str = "") -> list[Path]:
    """Write `table.tex` and `table.md`, and `runs.csv` if there is one.

    Returns:
        The written files.

    Raises:
        UserError: one is a link out of the directory.
    """
    texts = {TABLE_TEX: table_tex(blocks), TABLE_TEXT: table_text(blocks)}
    if runs:
        texts = {RUNS: runs, **texts}
    paths = {workdir / name: text for name, text in texts.items()}
    for path in paths:
        check_inside(path, workdir)
    for path, text in paths.items():
        write_text(path, text)
    return list(paths)
