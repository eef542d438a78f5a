"""The command `analyse`: measure a run or a study, and write its page again."""

from collections.abc import Sequence
from pathlib import Path

from cifar_jax.analysis.measure import measure_study
from cifar_jax.analysis.part import load_part
from cifar_jax.analysis.trained import Request, Shared
from cifar_jax.commands.report import is_run, read_outcome, write_page
from cifar_jax.commands.study_report import write_study
from cifar_jax.errors import UserError
from cifar_jax.names import IN_PYTHON
from cifar_jax.report.run_page import as_study
from cifar_jax.runner.console import Display
from cifar_jax.runner.directory import lock_directory
from cifar_jax.runner.moved import Moved
from cifar_jax.runner.results import Finished
from cifar_jax.study.collect import Run, Study, read_study
from cifar_jax.study.definition import check_file
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.rebuild import find_plan
from cifar_jax.study.record import write_plan


def _read_study(workdir: Path, display: Display) -> Study:
    """Read a study. Write its plan if it was lost."""
    plan, warning = find_plan(workdir)
    if plan.sweep is not None:
        raise UserError(f"{workdir}: is a study with a sweep; analyse one of its runs instead")
    if warning:
        display.say(warning)
        write_plan(workdir, plan)
    return read_study(workdir)


def _read_run(workdir: Path) -> Run:
    run = read_outcome(workdir)
    if not isinstance(run.results, Finished):
        raise UserError(f"{workdir}: this run diverged, so there is nothing to analyse")
    return run


def analyse_run(
    workdir: Path,
    names: Sequence[str],
    *,
    request: Request | None = None,
    file: ExperimentFile | None = None,
    moved: Moved | None = None,
    display: Display | None = None,
) -> None:
    """Measure a run or every run of a study, and write the page with the results.

    Args:
        workdir: directory of the run or the study.
        names: of the parts to measure.
        request: of the user; by default nothing more.
        file: the experiment file, if there is one.
        moved: where the images are now.
        display: shows progress and messages.

    Raises:
        UserError: there is no finished run, or an option is wrong.
    """
    display = display or Display()
    parts = [load_part(name) for name in names]
    single = is_run(workdir, "analyse")
    with lock_directory(workdir):
        if single:
            run = _read_run(workdir)
            study = as_study(run)
        else:
            study = _read_study(workdir, display)
        first = next(row[0] for row in study.runs.values() if row)
        if file is not None and study.file != IN_PYTHON:
            check_file(file, first.results.settings, workdir)
        shared = Shared(study, request or Request(), file, moved or Moved(), display)
        measure_study(shared, parts)
        if single:
            write_page(run, shared.found_images, display, file, shared.request.demo)
        else:
            write_study(workdir, shared.found_images, display, file, shared.request.demo)
