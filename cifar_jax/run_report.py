"""`report` for the directory of a single run: read what it left, and write its page."""

from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax import config as configuration
from cifar_jax.errors import UserError, counted
from cifar_jax.inputs import Shape, fits, is_count, is_name, is_number, optional
from cifar_jax.moved import Moved, find_images
from cifar_jax.report.console import Display
from cifar_jax.report.labels import font_warning
from cifar_jax.report.run_page import as_study, write_run_page
from cifar_jax.runner import directory as rundir
from cifar_jax.storage import read_sealed
from cifar_jax.study.collect import Run, read_divergence, read_run
from cifar_jax.study.record import STUDY

_COLUMNS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
# What the page needs of the results of a run that diverged.
_DIVERGED: Shape = {
    "config": dict,
    "dataset": {
        "name": is_name,
        "fingerprint": is_name,
        "n_train": is_count,
        "n_val": is_count,
        "n_test": is_count,
        "classes": [is_name],
    },
    "model": is_name,
    "norm": is_name,
    "seed": is_count,
    "num_params": is_count,
    "history": [dict.fromkeys(_COLUMNS, optional(is_number)) | {"epoch": is_count}],
    "train_seconds": is_number,
    "versions": dict,
}


def is_run(workdir: Path) -> bool:
    """Whether a directory holds a single run, finished or not, and not a study.

    Raises:
        UserError: if it holds neither.
    """
    if (workdir / STUDY).exists() or any(workdir.glob("*/seed*")):
        return False
    if not rundir.holds_run(workdir):
        raise UserError(f"--workdir {workdir}: holds neither a study nor a run")
    return True


def _unfinished(workdir: Path) -> str:
    """Why a directory without results has no page."""
    metrics = workdir / rundir.METRICS
    epochs = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
    return (
        f"{workdir}: this run is not finished ({counted(epochs, 'epoch')} so far), so it has no "
        f"page yet; resume it with --resume --workdir {workdir}"
    )


def _diverged(workdir: Path, results: dict[str, Any]) -> Run:
    """A run without predictions."""
    config = configuration.from_dict(results["config"], rundir.RESULTS)
    results = {**results, "config": configuration.to_dict(config)}
    nothing = np.zeros(0, np.int32)
    logits = np.zeros((0, len(results["dataset"]["classes"])), np.float32)
    return Run(results["norm"], results["seed"], workdir, results, nothing, nothing, logits)


def read_outcome(workdir: Path) -> Run:
    """The run in a directory, finished or diverged.

    Raises:
        UserError: if it is neither, or its results are damaged.
    """
    path = workdir / rundir.RESULTS
    if not path.exists():
        raise UserError(_unfinished(workdir))
    try:
        results = read_sealed(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as the results of a run ({error})") from None
    if read_divergence(workdir) is not None and fits(results, _DIVERGED):
        return _diverged(workdir, results)
    run = None
    if fits(results, {"norm": is_name, "seed": is_count}):
        run = read_run(workdir, results["norm"], results["seed"])
    if run is None:
        raise UserError(
            f"{path}: cannot be used: it or {rundir.PREDICTIONS} is damaged, or is not what a run "
            "writes"
        )
    return run


def report_run(
    workdir: Path,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    display: Display | None = None,
) -> Path:
    """Write the page of a single run.

    Args:
        workdir: the run's directory.
        dataset: where its images lie now, if not where they lay.
        data_dir: likewise.
        display: where messages are shown.

    Returns:
        The page, `report.html` in the directory.

    Raises:
        UserError: if no run has ended there, or its files are damaged.
    """
    display = display or Display()
    run = read_outcome(workdir)
    finished = len(run.label) > 0
    images = None
    if finished:
        config = configuration.from_dict(run.results["config"], rundir.RESULTS)
        digest = run.results["dataset"]["fingerprint"]
        images = find_images(config, digest, Moved(dataset, data_dir), display)
    data = as_study(run).dataset
    problem = font_warning([data["name"], *data["classes"]])
    if problem:
        display.say(f"warning: {problem}")
    with rundir.lock_directory(workdir, "report"):
        page = write_run_page(run, images, display.say)
    display.say(f"report: {page}")
    return page
