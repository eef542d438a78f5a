"""Compare arms that were trained in Python, or scores from elsewhere: a table, and the report."""

import functools
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from msgspec import structs

from cifar_jax.config import tables
from cifar_jax.config.settings import FileConfig
from cifar_jax.errors import InputError, UserError, shown
from cifar_jax.inputs import ARM
from cifar_jax.library.training import Runs
from cifar_jax.names import IN_PYTHON, NOT_ARMS, REPORT, STUDY
from cifar_jax.report.exports import (
    Block,
    scores_block,
    scores_runs,
    study_block,
    study_runs,
    table_tex,
)
from cifar_jax.report.headline import notices
from cifar_jax.report.page import write_report
from cifar_jax.report.page_figures import Warn
from cifar_jax.report.scores_page import write_scores_report
from cifar_jax.study import collect
from cifar_jax.study import scores as other_scores
from cifar_jax.study.claims import Claim, check_claims
from cifar_jax.study.file_checks import unshared_draws
from cifar_jax.study.scores import Scores
from cifar_jax.study.summary import summarise


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Arms with their differences to the control. `repr` is a table.

    Attributes:
        summary: every number, as in the file `summary.json`.
        block: the rows of the table.
        notices: what a reader must know before the numbers.
        csv: one row per run, as in the file `runs.csv`.
        write: writes the page and its files into a directory.
    """

    summary: dict[str, Any]
    block: Block
    notices: tuple[str, ...]
    csv: str
    write: Callable[[Path, Warn], object]

    @functools.cached_property
    def _cells(self) -> list[tuple[str, ...]]:
        """The table, with its head."""
        rows = [(row.arm, *self.block.cells(row)) for row in self.block.rows]
        return [("", *self.block.heads), *rows]

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in self._cells
        ]
        return "\n".join([*lines, self.block.note, *self.notices])

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""

        def line(cells: Sequence[str], kind: str) -> str:
            return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

        head, *rows = self._cells
        body = "".join(line(row, "td") for row in rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in (self.block.note, *self.notices))
        table = f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
        return str(Markup(table + notes))

    def latex(self) -> str:
        """Return the table in LaTeX, for the package booktabs."""
        return table_tex([self.block])

    def frame(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each run.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UserError("frame: needs pandas: pip install pandas; .csv has the same") from None
        return pd.read_csv(io.StringIO(self.csv))

    def report(self, directory: str | Path) -> Path:
        """Write the page with all figures and tables, and return its path.

        Args:
            directory: it is made if it is missing. A page in it is replaced.

        Raises:
            UserError: it cannot be written, or is that of a study.
        """
        workdir = Path(directory)
        if (workdir / STUDY).exists():
            raise UserError(f"{workdir}: is the directory of a study; choose another")
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{workdir}: cannot be made ({error.strerror})") from None
        self.write(workdir, lambda line: warnings.warn(line, stacklevel=3))
        return workdir / REPORT


def compare(
    arms: Mapping[str, Runs] | Scores,
    control: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    title: str = "",
    claims: Sequence[Claim] = (),
) -> Comparison:
    """Compare the test accuracy of arms with that of a control, over pairs of runs of one seed.

    >>> import cifar_jax as cj
    >>> rng, labels = np.random.default_rng(0), np.arange(90) % 3
    >>> pixels = rng.integers(0, 256, (90, 8, 8, 3), np.uint8)
    >>> data = cj.from_arrays((pixels[:60], labels[:60]), test=(pixels[60:], labels[60:]))
    >>> plain, batch = (cj.CNN(3, norm, widths=(), hidden=8) for norm in ("none", "batch"))
    >>> arms = {
    ...     "none": cj.run(cj.Experiment(plain, epochs=1), data, range(2)),
    ...     "batch": cj.run(cj.Experiment(batch, epochs=1), data, range(2)),
    ... }
    >>> cj.compare(arms, control="none")
           n  mean [%]  std   difference [points]  95 % interval
    none   2  ...
    batch  2  ... to ...
    Test accuracy: mean and standard deviation of n runs; difference to none over pairs of seeds.
    ...

    Args:
        arms: runs by name, or scores from `read_scores`.
        control: name of the arm to compare with; by default the first.
        labels: names of arms in the table and the report, if they differ.
        title: of the report; a question.
        claims: `better(...)` and `equivalent(...)`, which the report decides; by default every
            other arm is better than the control.

    Raises:
        InputError: there is no arm, a name is not allowed, or the arms have other test images.
    """
    if isinstance(arms, Scores):
        return _compare_scores(arms, control)
    names = _checked_names(arms, control, labels)
    study = replace(
        _study(arms, control or names[0]),
        labels={name: (labels or {}).get(name, name) for name in names},
        title=title,
        claims=check_claims(claims, names),
    )
    if not any(study.runs.values()):
        raise InputError("arms: every run diverged, so there is nothing to compare")
    summary, images = summarise(study), arms[names[0]].data.dataset

    def write(workdir: Path, warn: Warn) -> None:
        for name in summary["per_arm"]:
            (workdir / name).mkdir(exist_ok=True)
        write_report(_moved(study, workdir), summary, images, warn)

    found = tuple(notices(study, summary))
    return Comparison(summary, study_block(study, summary), found, study_runs(study), write)


def _checked_names(
    arms: Mapping[str, Runs], control: str | None, labels: Mapping[str, str] | None
) -> tuple[str, ...]:
    """Return the names of the arms. Raises as `compare`."""
    if not isinstance(arms, Mapping):
        kind = type(arms).__name__
        raise InputError(f"arms: is a {kind}; give a dict such as {{'relu': runs, 'mish': others}}")
    names = tuple(arms)
    if not names:
        raise InputError("arms: there is none; give a dict such as {'relu': runs}")
    for name, runs in arms.items():
        if not isinstance(name, str) or not re.fullmatch(ARM, name) or name in NOT_ARMS:
            raise InputError(
                f"arms: {shown(name)}: a name is up to 64 letters, digits and '_', and none of "
                f"{', '.join(NOT_ARMS)}; labels gives it another text"
            )
        if not isinstance(runs, Runs):
            raise InputError(f"arms: {name}: is a {type(runs).__name__}; allowed: Runs, from run")
    for what, given in (("control", [control] if control else []), ("labels", labels or {})):
        for name in given:
            if name not in names:
                raise InputError(
                    f"{what}: {shown(name)} is not an arm; allowed: {', '.join(names)}"
                )
    return names


def _compare_scores(scores: Scores, control: str | None) -> Comparison:
    summary = other_scores.compare_scores(scores, control)

    def write(workdir: Path, warn: Warn) -> None:
        write_scores_report(workdir, scores, summary, "", warn)

    found = tuple(other_scores.notices(summary))
    return Comparison(summary, scores_block(summary), found, scores_runs(scores), write)


def _study(arms: Mapping[str, Runs], control: str) -> collect.Study:
    """Return the runs as a study.

    Raises:
        InputError: two arms have other test images.
    """
    first = arms[control]
    for name, runs in arms.items():
        if runs.data.fingerprint != first.data.fingerprint:
            raise InputError(
                f"arms: {name} was trained on {runs.data!r}, and {control} on {first.data!r}; they "
                "must be the same images"
            )
    seeds = tuple(sorted({seed for runs in arms.values() for seed in runs.seeds}))
    finished = {name: _finished(name, runs) for name, runs in arms.items()}
    cells = [(name, seed) for name in arms for seed in seeds]
    there = {(name, run.seed) for name, row in finished.items() for run in row}
    experiments = {name: runs.experiment for name, runs in arms.items()}
    draws = unshared_draws(experiments, first.experiment, first.data.test_images.shape[1:])
    own = {name: [*_split(runs, first), *draws.get(name, [])] for name, runs in arms.items()}
    config = replace(first.data.config, experiment=FileConfig(file=IN_PYTHON))
    return collect.Study(
        workdir=Path(),
        arms=tuple(arms),
        seeds=seeds,
        runs=finished,
        missing=tuple(cell for cell in cells if cell not in there),
        diverged=tuple((name, seed) for name, runs in arms.items() for seed in runs.diverged),
        dataset=first.results[0].dataset,
        config=tables.to_dict(config),
        control=control,
        unshared={name: tuple(lines) for name, lines in own.items() if lines},
    )


def _finished(arm: str, runs: Runs) -> list[collect.Run]:
    """Return the finished runs of an arm by seed, with its name in their records."""
    table, labels = {"file": IN_PYTHON, "arm": arm}, np.asarray(runs.data.test_labels)
    found = [
        collect.make_run(
            Path(arm) / f"seed{results.seed}",
            structs.replace(results, config={**results.config, "experiment": table}),
            {"predicted": logits.argmax(axis=1), "label": labels, "logits": logits},
            functools.partial(np.asarray, logits),
        )
        for results, logits in zip(runs.results, runs.logits, strict=True)
        if results.seed not in runs.diverged
    ]
    return sorted(found, key=lambda run: run.seed)


def _split(runs: Runs, first: Runs) -> list[str]:
    """Say if an arm has another split than the control."""
    pairs = [
        (getattr(runs.data, rows), getattr(first.data, rows)) for rows in ("train_rows", "val_rows")
    ]
    if all(np.array_equal(a, b) for a, b in pairs):
        return []
    sizes = [f"{len(a):,} instead of {len(b):,}" for a, b in pairs]
    return [f"Its split is another: {sizes[0]} training and {sizes[1]} validation images."]


def _moved(study: collect.Study, workdir: Path) -> collect.Study:
    """Return the study with another directory."""
    runs = {
        name: [replace(run, directory=workdir / run.directory) for run in row]
        for name, row in study.runs.items()
    }
    return replace(study, workdir=workdir, runs=runs)
