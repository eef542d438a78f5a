"""The command `compare`: compare scores in a table, or write studies into one table."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import read_json
from cifar_jax.names import STUDY, SUMMARY
from cifar_jax.report.exports import Block, study_block, sweep_block, write_tables
from cifar_jax.report.scores_page import answers, write_scores_report
from cifar_jax.runner.console import Display
from cifar_jax.runner.directory import lock_directory
from cifar_jax.storage import check_inside, write_json
from cifar_jax.study.collect import read_study, read_sweep
from cifar_jax.study.record import read_plan
from cifar_jax.study.score_files import read_scores
from cifar_jax.study.scores import compare_scores, notices
from cifar_jax.study.summary import summarise
from cifar_jax.study.sweep import summarise_sweep

_LONGEST_NAME = 80  # characters of a default directory's name


def _check_free(workdir: Path, comparison: dict[str, Any]) -> None:
    """Check that a directory is new, empty, or has the same comparison.

    Raises:
        UserError: it has something else.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir}: is not a directory")
    if not workdir.exists() or not any(workdir.iterdir()):
        return
    try:
        found = read_json(workdir / SUMMARY)["comparison"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != comparison:
        what = "another comparison" if found else "something else"
        raise UserError(f"--workdir {workdir}: has {what} in it; choose another --workdir")


def _default(names: Sequence[str]) -> Path:
    return Path("runs") / f"compare-{'-'.join(names)}"[:_LONGEST_NAME]


def compare_table(
    path: Path,
    *,
    columns: dict[str, str | None],
    control: str | None = None,
    workdir: Path | None = None,
    display: Display | None = None,
) -> Path:
    """Compare the scores in a table, and write the page.

    Args:
        path: of the table.
        columns: names of `arm_column`, `seed_column` and `metric`; None to guess.
        control: the arm to compare with; by default the first.
        workdir: to write in, by default `runs/compare-<file>`.
        display: shows the answers.

    Returns:
        The page.

    Raises:
        UserError: the table or the directory cannot be used.
    """
    display = display or Display()
    scores = read_scores(path, **columns)
    summary = compare_scores(scores, control)
    workdir = workdir or _default([path.stem])
    flags = {**{k.replace("_", "-"): v for k, v in columns.items()}, "control": control}
    given = [word for name, value in flags.items() if value for word in (f"--{name}", value)]
    comparison = {"source": scores.source, "metric": scores.metric}
    summary = {"comparison": comparison, **summary}
    _check_free(workdir, comparison)
    first, *others = summary["notes"]
    display.say(f"{scores.source}: {first}")
    if control is None:
        display.say(f"control: {summary['control']}, the first arm; --control names another")
    for notice in (*others, *notices(summary)):
        display.say(f"warning: {notice}")
    command = shlex.join(["python", "-m", "cifar_jax.main", "compare", path.name, *given])
    with lock_directory(workdir):
        page = write_scores_report(workdir, scores, summary, command, display.say)[0]
    for line in answers(summary):
        display.say(line)
    display.say(f"report: {page}")
    return page


def _block(workdir: Path) -> Block:
    if read_plan(workdir).sweep:
        sweep = read_sweep(workdir)
        return sweep_block(sweep, summarise_sweep(sweep))
    study = read_study(workdir)
    return study_block(study, summarise(study))


def compare_studies(
    studies: Sequence[Path], workdir: Path | None = None, display: Display | None = None
) -> Path:
    """Write one table of several studies: `table.tex` and `table.md`.

    Args:
        studies: their directories.
        workdir: to write in, by default `runs/compare-<first>-<second>`.
        display: shows the files.

    Returns:
        The Markdown table.

    Raises:
        UserError: a directory has no study, or the table cannot be written.
    """
    display = display or Display()
    blocks = [_block(path) for path in studies]
    names = [block.title for block in blocks]
    workdir = workdir or _default(names)
    comparison = {"studies": names}
    _check_free(workdir, comparison)
    with lock_directory(workdir):
        check_inside(workdir / SUMMARY, workdir)
        rows = {block.title: [row._asdict() for row in block.rows] for block in blocks}
        write_json(workdir / SUMMARY, {"comparison": comparison, "studies": rows})
        tex, text = write_tables(workdir, blocks)
    display.say(f"table: {tex} and {text}")
    return text


def is_study(path: Path) -> bool:
    """Return whether `compare` takes a path for a study.

    Raises:
        UserError: it is a directory without a study.
    """
    if not path.is_dir():
        return False
    if not (path / STUDY).exists():
        raise UserError(f"{path}: has no study in it; compare takes studies, or one table")
    return True


def compare_run(paths: Sequence[Path], flags: dict[str, str | None], workdir: Path | None) -> Path:
    """Compare what a command line names: one table, or the directories of studies.

    Args:
        paths: of the table, or of the studies.
        flags: `arm_column`, `seed_column`, `metric` and `control`; None if not given.
        workdir: to write in; None for the default.

    Raises:
        UserError: wrong input.
    """
    studies = [is_study(path) for path in paths]
    if all(studies):
        if given := [name for name, value in flags.items() if value]:
            flag = f"--{given[0].replace('_', '-')}"
            raise UserError(f"{flag}: is only for a table, not for studies")
        if len({path.resolve() for path in paths}) < len(paths):
            raise UserError("compare: a study is given twice; give it once")
        return compare_studies(paths, workdir)
    if len(paths) > 1:
        table = paths[studies.index(False)]
        raise UserError(
            f"{shown(str(table))}: is not a study; compare takes one table, with a column of "
            "the arm, or directories of studies"
        )
    columns = {key: value for key, value in flags.items() if key != "control"}
    return compare_table(paths[0], columns=columns, control=flags["control"], workdir=workdir)
