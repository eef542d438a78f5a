"""Check that a run in a study's directory has the study's settings and data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cifar_jax.config.changes import SAME_EXPERIMENT, changes
from cifar_jax.config.settings import Config
from cifar_jax.errors import UserError, counted, shown
from cifar_jax.runner.results import DatasetRecord, Finished, Results

# Fields in which a run's config may differ from its arm's.
FREE = (*SAME_EXPERIMENT, "study")

Wrong = tuple[str, Any, Any]


def _raise_if(path: Path, wrong: list[Wrong]) -> None:
    if wrong:
        listed = "; ".join(f"{field} is {was}, must be {wanted}" for field, was, wanted in wrong)
        raise UserError(f"{path}: is not a run of this study: {listed}")


def _wrong_fields(found: Config, wanted: Config) -> list[Wrong]:
    return [tuple(change) for change in changes(found, wanted, FREE)]


def _wrong_data(found: DatasetRecord, wanted: DatasetRecord) -> list[Wrong]:
    pairs = {key: (getattr(found, key), getattr(wanted, key)) for key in ("fingerprint", "classes")}
    return [(f"dataset.{k}", shown(was), shown(to)) for k, (was, to) in pairs.items() if was != to]


def check_settings(
    path: Path, found: Config, dataset: DatasetRecord | None, wanted: Config, data: DatasetRecord
) -> None:
    """Check a run's recorded settings and images against the study.

    Args:
        path: of the run.
        found: the run's config.
        dataset: the record of its images, or None.
        wanted: the config of the study's run.
        data: the record of the study's images.

    Raises:
        UserError: a field differs; the message has both values.
    """
    _raise_if(path, _wrong_fields(found, wanted) + (_wrong_data(dataset, data) if dataset else []))


def check_results(path: Path, results: Results, wanted: Config, data: DatasetRecord) -> None:
    """Check the results of a finished or diverged run against the study.

    Args:
        path: of the run.
        results: its `results.json`.
        wanted, data: see `check_settings`.

    Raises:
        UserError: a field differs; the message has both values.
    """
    check_settings(path, results.settings, results.dataset, wanted, data)
    model, training = wanted.model, wanted.training
    pairs: list[Wrong] = [("seed", results.seed, training.seed)]
    if wanted.experiment.file is None:
        pairs += [("model", results.model, model.name), ("norm", results.norm, model.norm)]
    wrong = [(field, was, to) for field, was, to in pairs if was != to]
    epochs = len(results.history)
    if isinstance(results, Finished) and epochs != training.epochs:
        wrong.append(("length of its history", counted(epochs, "epoch"), training.epochs))
    _raise_if(path, wrong)


def check_origins(runs: Iterable[tuple[Path, Config, str | None]]) -> None:
    """Check that runs with the same `init_from` have the same initial values.

    Args:
        runs: directory, config, and recorded origin of the initial values.

    Raises:
        UserError: two runs differ; the message names them.
    """
    first: dict[str, tuple[Path, str | None]] = {}
    for path, config, digest in runs:
        source = config.transfer.init_from
        if source in (None, "none"):
            continue
        named = str(source).replace("{seed}", str(config.training.seed))
        other, expected = first.setdefault(named, (path, digest))
        if expected != digest:
            raise UserError(
                f"{path}: has other initial values than {other}: the digest of "
                f"{named} is {str(digest)[:12]}, must be {str(expected)[:12]}"
            )
