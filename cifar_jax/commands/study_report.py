"""Write the statistics, figures and report of a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_jax.analysis.sections import read_sections
from cifar_jax.commands.demo import make_demo
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import counted
from cifar_jax.report.page import write_report
from cifar_jax.report.sweep_page import choice_text, write_sweep_report
from cifar_jax.report.text import difference, interval, percent, undecided
from cifar_jax.runner.console import Display
from cifar_jax.runner.directory import lock_directory
from cifar_jax.runner.moved import Moved, find_images
from cifar_jax.study.collect import Study, read_study, read_sweep
from cifar_jax.study.comparable import computed_differently
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.rebuild import find_plan
from cifar_jax.study.record import read_plan, write_plan
from cifar_jax.study.summary import summarise
from cifar_jax.study.sweep import summarise_sweep


def _say_damaged(studies: Sequence[Study], display: Display) -> None:
    """Print a line for each run with damaged results."""
    for wrong in (line for study in studies for line in study.damaged):
        display.say(
            f"{wrong}; not used: the command `study` writes it again from the run's checkpoint"
        )


def _say_mixture(summary: dict[str, Any], display: Display) -> None:
    """Warn if the runs were made with different code."""
    made = {**summary["versions"], "revision": summary["git_revision"] or ""}
    mixed = [
        f"{name} {texts.replace('; ', ' and ')}" for name, texts in made.items() if ";" in texts
    ]
    if mixed:
        display.say(f"warning: the runs were made with different code: {', '.join(mixed)}")


def write_study(
    workdir: Path,
    images: Dataset | None,
    display: Display,
    file: ExperimentFile | None = None,
    demo: bool = True,
) -> None:
    """Write statistics, figures and report of the finished runs.

    Args:
        workdir: the study's directory.
        images: of its dataset; without them the page has no pictures.
        display: shows messages.
        file: the study's experiment file, if it has one; the page needs it for the networks.
        demo: whether the page has the networks.
    """
    if read_plan(workdir).sweep:
        _write_sweep(workdir, images, display)
        return
    study = read_study(workdir)
    _say_damaged([study], display)
    for notice in computed_differently([study]):
        display.say(f"warning: {notice}")
    summary = summarise(study)
    _say_mixture(summary, display)
    analysed = read_sections(study, images, display.say)
    asked = make_demo(study, images, file) if demo else None
    written = write_report(study, summary, images, display.say, analysed, asked)
    for arm in summary["arms"]:
        row = summary["per_arm"].get(arm)
        if row:
            label = study.label(arm) if study.file else arm
            display.say(f"{label}: test accuracy {_accuracy(row['test_accuracy'])}")
    for row in summary["claims"] if study.file else ():
        display.say(f"{row['claim']}: {row['verdict']}, {row['measured']}")
    row = summary["paired"].get("test_accuracy")
    if row:
        first, second = summary["paired"]["arms"]
        if study.file:
            first, second = study.label(first), study.label(second)
        why = undecided(row)
        verdict = f": undecided, {why}" if why else ""
        display.say(f"{second} minus {first}: {difference(row)}{verdict}")
    _say_report(written, display)


def _write_sweep(workdir: Path, images: Dataset | None, display: Display) -> None:
    """Write statistics, figures and report of a sweep's finished runs."""
    study = read_sweep(workdir)
    _say_damaged(study.studies, display)
    for notice in computed_differently(study.studies):
        display.say(f"warning: {notice}")
    summary = summarise_sweep(study)
    _say_mixture(summary, display)
    written = write_sweep_report(study, summary, images, display.say)
    for row in summary["cells"]:
        if row["test_accuracy"]["n"]:
            diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
            label = f"{row['arm']}, {study.sweep.at(row['value'])}"
            display.say(f"{label}: test accuracy {_accuracy(row['test_accuracy'])}{diverged}")
    for row in summary["chosen"]:
        display.say(choice_text(study.sweep, row, summary["labels"]))
    _say_report(written, display)


def _say_report(written: Sequence[Path], display: Display) -> None:
    for path in written:
        if path.suffix == ".html":
            display.say(f"report: {path}")


def _accuracy(row: dict[str, Any]) -> str:
    """Describe a mean accuracy with its 95 % interval, or the reason for its absence."""
    seeds = counted(row["n"], "seed")
    if row["ci_t"] is None:
        why = f"; {row['no_interval']}" if row["n"] > 1 else ""
        return f"{percent(row['mean'])} ({seeds}{why})"
    return f"{percent(row['mean'])} (95 % interval {interval(row['ci_t'], 100)}, {seeds})"


def redraw(
    workdir: Path,
    moved: Moved | None = None,
    display: Display | None = None,
    file: ExperimentFile | None = None,
    demo: bool = True,
) -> None:
    """Write the report of a study again from the files of its runs.

    Args:
        workdir: the study's directory.
        moved: where the images are now.
        display: shows messages.
        file, demo: see `write_study`.

    Raises:
        UserError: there is no study, or it has no finished run.
    """
    display = display or Display()
    found, warning = find_plan(workdir)
    fingerprint = found.dataset.fingerprint
    images = find_images(found.settings, fingerprint, moved or Moved(), display)
    with lock_directory(workdir):
        if warning:
            display.say(warning)
            write_plan(workdir, found)
        write_study(workdir, images, display, file, demo)
