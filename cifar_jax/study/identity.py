"""Whether what a directory holds is the run that a study means by it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cifar_jax.changes import SAME_EXPERIMENT, changes
from cifar_jax.config import Config
from cifar_jax.errors import UserError, counted, shown
from cifar_jax.results import DatasetRecord, Finished, Results

# In these a run's config may differ from its arm's.
FREE = (*SAME_EXPERIMENT, "study")

Wrong = tuple[str, Any, Any]


def _refuse(path: Path, wrong: list[Wrong]) -> None:
    if wrong:
        listed = "; ".join(f"{field} is {was}, must be {wanted}" for field, was, wanted in wrong)
        raise UserError(f"{path}: is not a run of this study: {listed}")


def _wrong_fields(found: Config, wanted: Config) -> list[Wrong]:
    return [tuple(change) for change in changes(found, wanted, FREE)]


def _wrong_data(found: DatasetRecord, wanted: DatasetRecord) -> list[Wrong]:
    pairs = {key: (getattr(found, key), getattr(wanted, key)) for key in ("fingerprint", "classes")}
    return [(f"dataset.{k}", shown(was), shown(to)) for k, (was, to) in pairs.items() if was != to]


def check_begun(
    path: Path, found: Config, dataset: DatasetRecord | None, wanted: Config, data: DatasetRecord
) -> None:
    """Refuse a directory whose run was begun as another.

    Args:
        path: of the run.
        found: what it was begun with.
        dataset: the record of its images; None if there is none.
        wanted: the config of the study's run.
        data: the record of the study's images.

    Raises:
        UserError: naming each field, what it is and what it must be.
    """
    _refuse(path, _wrong_fields(found, wanted) + (_wrong_data(dataset, data) if dataset else []))


def check_results(path: Path, results: Results, wanted: Config, data: DatasetRecord) -> None:
    """Refuse results that are not those of the study's run.

    Args:
        path: of the run.
        results: its `results.json`, of a run that finished or diverged.
        wanted, data: as of `check_begun`.

    Raises:
        UserError: as `check_begun`.
    """
    check_begun(path, results.settings, results.dataset, wanted, data)
    model, training = wanted.model, wanted.training
    said: list[Wrong] = [
        ("model", results.model, model.name),
        ("norm", results.norm, model.norm),
        ("seed", results.seed, training.seed),
    ]
    wrong = [(field, was, to) for field, was, to in said if was != to]
    epochs = len(results.history)
    if isinstance(results, Finished) and epochs != training.epochs:
        wrong.append(("length of its history", counted(epochs, "epoch"), training.epochs))
    _refuse(path, wrong)


def check_origins(runs: Iterable[tuple[Path, Config, str | None]]) -> None:
    """Refuse runs that name the same initial values and began from different ones.

    Args:
        runs: directory, config, and digest of the initial values.

    Raises:
        UserError: naming two of them.
    """
    first: dict[str, tuple[Path, str | None]] = {}
    for path, config, digest in runs:
        source = config.transfer.init_from
        if source in (None, "none"):
            continue
        named = str(source).replace("{seed}", str(config.training.seed))
        other, before = first.setdefault(named, (path, digest))
        if before != digest:
            raise UserError(
                f"{path}: begins from other initial values than {other}: the digest of "
                f"{named} is {str(digest)[:12]}, must be {str(before)[:12]}"
            )
