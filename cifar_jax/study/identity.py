"""Check that a run in a study's directory has the study's settings and data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cifar_jax import config as configuration
from cifar_jax.changes import SAME_EXPERIMENT, changes
from cifar_jax.config import Config
from cifar_jax.errors import UserError, counted, shown

# Fields in which a run's config may differ from its arm's.
FREE = (*SAME_EXPERIMENT, "study")

Wrong = tuple[str, Any, Any]


def _raise_if(path: Path, wrong: list[Wrong]) -> None:
    if wrong:
        listed = "; ".join(f"{field} is {was}, must be {wanted}" for field, was, wanted in wrong)
        raise UserError(f"{path}: is not a run of this study: {listed}")


def _wrong_fields(found: Config, wanted: Config) -> list[Wrong]:
    return [tuple(change) for change in changes(found, wanted, FREE)]


def _wrong_data(found: dict[str, Any], wanted: dict[str, Any]) -> list[Wrong]:
    return [
        (f"dataset.{key}", shown(found[key]), shown(wanted[key]))
        for key in ("fingerprint", "classes")
        if key in wanted and found[key] != wanted[key]
    ]


def check_begun(
    path: Path, found: Config, dataset: dict[str, Any] | None, wanted: Config, data: dict[str, Any]
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


def check_results(
    path: Path, results: dict[str, Any], wanted: Config, data: dict[str, Any]
) -> None:
    """Check the results of a finished or diverged run against the study.

    Args:
        path: of the run.
        results: its `results.json`.
        wanted, data: see `check_begun`.

    Raises:
        UserError: a field differs; the message has both values.
    """
    found = configuration.from_dict(results["config"], f"{path}/results.json")
    check_begun(path, found, results["dataset"], wanted, data)
    model, training = wanted.model, wanted.training
    expected = {"model": model.name, "norm": model.norm, "seed": training.seed}
    wrong = [(key, results[key], value) for key, value in expected.items() if results[key] != value]
    epochs = len(results["history"])
    if results.get("status") != "diverged" and epochs != training.epochs:
        wrong.append(("length of its history", counted(epochs, "epoch"), training.epochs))
    _raise_if(path, wrong)


def check_origins(runs: Iterable[tuple[Path, Config, dict[str, Any] | None]]) -> None:
    """Check that runs with the same `init_from` have the same initial values.

    Args:
        runs: directory, config, and recorded origin of the initial values.

    Raises:
        UserError: two runs differ; the message names them.
    """
    first: dict[str, tuple[Path, str | None]] = {}
    for path, config, origin in runs:
        source = config.transfer.init_from
        if source in (None, "none"):
            continue
        digest = origin.get("digest") if origin else None
        named = str(source).replace("{seed}", str(config.training.seed))
        other, expected = first.setdefault(named, (path, digest))
        if expected != digest:
            raise UserError(
                f"{path}: has other initial values than {other}: the digest of "
                f"{named} is {str(digest)[:12]}, must be {str(expected)[:12]}"
            )
