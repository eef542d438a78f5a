"""The command `report` for a single run: read its results, and write its page."""

from pathlib import Path

from cifar_jax.analysis.sections import read_sections
from cifar_jax.commands.demo import make_demo
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError, counted
from cifar_jax.names import METRICS
from cifar_jax.report.labels import font_warning
from cifar_jax.report.run_page import as_study, write_run_page
from cifar_jax.runner.console import Display
from cifar_jax.runner.directory import holds_run, holds_study, lock_directory
from cifar_jax.runner.moved import Moved, find_images
from cifar_jax.runner.results import Finished
from cifar_jax.study.collect import Run, read_ended
from cifar_jax.study.file import ExperimentFile


def is_run(workdir: Path, flag: str = "--workdir") -> bool:
    """Return whether a directory holds a single run, finished or not. False for a study.

    Args:
        workdir: the directory.
        flag: the user's flag for it, for the message.

    Raises:
        UserError: it holds neither.
    """
    if holds_study(workdir):
        return False
    if not holds_run(workdir):
        raise UserError(f"{flag} {workdir}: holds neither a study nor a run")
    return True


def read_outcome(workdir: Path) -> Run:
    """Read the finished or diverged run in a directory.

    Raises:
        UserError: the run is not finished, or its results are damaged.
    """
    run = read_ended(workdir)
    if run is None:
        metrics = workdir / METRICS
        epochs = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        raise UserError(
            f"{workdir}: this run is not finished ({counted(epochs, 'epoch')} so far), so it has "
            f"no page yet; resume it with --resume --workdir {workdir}"
        )
    return run


def report_run(
    workdir: Path,
    moved: Moved | None = None,
    display: Display | None = None,
    file: ExperimentFile | None = None,
    demo: bool = True,
) -> Path:
    """Write the page of a single run.

    Args:
        workdir: the run's directory.
        moved: where the images are now.
        display: shows messages.
        file, demo: see `write_page`.

    Returns:
        The page, `report.html` in the directory.

    Raises:
        UserError: the run is not finished, or its files are damaged.
    """
    display = display or Display()
    run = read_outcome(workdir)
    data, images = run.results.dataset, None
    if isinstance(run.results, Finished):
        settings = run.results.settings
        images = find_images(settings, data.fingerprint, moved or Moved(), display)
    with lock_directory(workdir):
        return write_page(run, images, display, file, demo)


def write_page(
    run: Run,
    images: Dataset | None,
    display: Display,
    file: ExperimentFile | None = None,
    demo: bool = True,
) -> Path:
    """Write the page of a single run, with its analysis if there is one. Return its path.

    Args:
        run: finished or diverged.
        images: of its dataset; without them the page has no pictures.
        display: shows messages.
        file: the run's experiment file, if it has one; the page needs it for the network.
        demo: whether the page has the network. That of a run that diverged has none.
    """
    data = run.results.dataset
    if problem := font_warning([data.name, *data.classes]):
        display.say(f"warning: {problem}")
    study = as_study(run)
    analysed = read_sections(study, images, display.say)
    finished = isinstance(run.results, Finished)
    asked = make_demo(study, images, file) if demo and finished else None
    page = write_run_page(run, images, display.say, analysed, asked)
    display.say(f"report: {page}")
    return page
