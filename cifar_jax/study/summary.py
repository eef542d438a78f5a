"""Compute all numbers of a study, as plain data."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import structs

from cifar_jax.data.sources import published as images
from cifar_jax.experiments import published
from cifar_jax.experiments.published import BASELINE, BATCHNORM
from cifar_jax.runner.results import Spent
from cifar_jax.storage import nan_to_none
from cifar_jax.study.claims import Claim, against_control, on_dataset
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.measures import (
    area_under_curve,
    bin_rows,
    calibration_error,
    first_epoch,
    mcnemar,
    oscillation,
    variance_parts,
)
from cifar_jax.study.planning import stein_interval
from cifar_jax.study.samples import Sample, arm_samples, compare, describe, pair_samples, with_holm
from cifar_jax.study.verdicts import claim_rows

THRESHOLDS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
# The network of the report's claims.
REPORT_MODEL = "cnn"


def summarise_arm(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the statistics of one arm over its seeds."""
    errors = [calibration_error(run.bins) for run in runs]
    bins = np.sum([run.bins for run in runs], axis=0)
    return {
        **{name: describe(sample) for name, sample in arm_samples(runs).items()},
        "seeds": [run.seed for run in runs],
        "variance": variance_parts(np.stack([run.correct for run in runs])),
        "num_params": runs[0].results.num_params,
        "epochs": len(runs[0].results.history),
        "calibration": {"ece": float(np.mean(errors)), "bins": bin_rows(bins)},
    }


def summarise_pairs(pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any]:
    """Return the statistics of the second arm minus the first, over seed pairs."""
    paired: dict[str, Any] = {name: compare(row) for name, row in pair_samples(pairs).items()}
    paired["train_seconds"]["relative"] = paired.pop("relative_seconds")
    return {
        "arms": [pairs[0][0].arm, pairs[0][1].arm],
        "seeds": [a.seed for a, _ in pairs],
        **paired,
    }


def _oscillations(runs: Sequence[Run], curve: str) -> dict[str, Any]:
    values = [oscillation(run.curve(curve), run.curve("learning_rate")) for run in runs]
    return describe(Sample([value for value in values if value is not None], least=0.0))


def summarise_convergence(runs: Sequence[Run]) -> dict[str, Any]:
    """Return statistics of how fast and how smoothly one arm trains."""
    curves = [run.curve("val_accuracy") for run in runs]
    return {
        "thresholds": list(THRESHOLDS),
        "first_epoch": [[first_epoch(curve, t) for curve in curves] for t in THRESHOLDS],
        "area_under_curve": describe(Sample(list(map(area_under_curve, curves)), None, 0.0, 1.0)),
        "oscillation": {curve: _oscillations(runs, curve) for curve in ("train_loss", "val_loss")},
    }


def epochs_saved(pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any]:
    """Return by how many epochs the second arm reaches each validation accuracy earlier.

    A seed pair with a run that never reaches a threshold is None in `saved`, and not in
    `statistics`.
    """
    curves = [(a.curve("val_accuracy"), b.curve("val_accuracy")) for a, b in pairs]
    saved = [
        [
            None if first is None or second is None else first - second
            for first, second in ((first_epoch(a, t), first_epoch(b, t)) for a, b in curves)
        ]
        for t in THRESHOLDS
    ]
    fewest, most = (float(len(pair) - 1) for pair in curves[0][::-1])
    return {
        "thresholds": list(THRESHOLDS),
        "saved": saved,
        "statistics": [
            describe(Sample([n for n in row if n is not None], None, -fewest, most))
            for row in saved
        ],
    }


def _reason(study: Study, pairs: int, paired: dict[str, Any]) -> str | None:
    """Return why some intervals are missing, or None. `pairs` is the number of seed pairs."""
    single = [arm for arm in study.arms if len(study.runs[arm]) == 1]
    if single:
        what = f"Only one seed of {' and of '.join(single)} has finished"
    elif pairs == 1:
        what = "Only one seed has finished in both arms"
    elif paired and paired["test_accuracy"]["no_interval"]:
        return f"The difference has no interval: {paired['test_accuracy']['no_interval']}."
    else:
        return None
    return f"{what}. One run shows neither the spread between seeds nor an interval."


def joined(runs: Sequence[Run], key: str) -> str | None:
    """Join the different values of the runs in one line. None if no run has one."""
    values = dict.fromkeys(getattr(run.results, key) for run in runs)
    return "; ".join(value for value in values if value) or None


def time_spent(runs: Sequence[Run]) -> dict[str, float]:
    """Return the sums of `results.Spent` over runs. Empty if a run does not record it."""
    found = [structs.asdict(run.results.spent) for run in runs if run.results.spent]
    if len(found) < len(runs):
        return {}
    return {key: sum(row[key] for row in found) for key in Spent.__struct_fields__}


def joined_versions(runs: Sequence[Run]) -> dict[str, str]:
    """Return the versions of packages. Different versions of one are joined: "0.5.0; 0.10.2"."""
    names = dict.fromkeys(name for run in runs for name in run.results.versions)
    return {
        name: "; ".join(dict.fromkeys(run.results.versions.get(name, "none") for run in runs))
        for name in names
    }


def chosen_pair(arms: Sequence[str], control: str = "") -> tuple[str, str] | None:
    """Return the two arms to compare, or None.

    They are the control and the first other arm. Without a control they are baseline and
    BatchNorm, or else the first two.
    """
    if control in arms and len(arms) > 1:
        return control, next(arm for arm in arms if arm != control)
    if BASELINE in arms and BATCHNORM in arms:
        return BASELINE, BATCHNORM
    return (arms[0], arms[1]) if len(arms) > 1 else None


def compared_arms(study: Study) -> tuple[str, str] | None:
    """Return the two arms to compare, of those with a finished run."""
    return chosen_pair([arm for arm in study.arms if study.runs[arm]], study.control)


def against_first(study: Study) -> list[dict[str, Any]]:
    """Return rows of every other arm's test accuracy minus the first arm's, over seed pairs."""
    both = compared_arms(study)
    if both is None:
        return []
    rows = []
    for arm in study.arms:
        pairs = study.pairs(both[0], arm) if arm != both[0] else []
        if pairs:
            gain = pair_samples(pairs)["test_accuracy"]
            rows.append({"arms": [both[0], arm], **compare(gain)})
    return with_holm(rows)


def is_cifar10(study: Study) -> bool:
    """Return whether the images are CIFAR-10's, by dataset or by `--folder-is-cifar10`.

    The published numbers and the claims about named classes apply only to CIFAR-10.
    """
    name, classes = study.dataset.name, study.dataset.classes
    declared = name.startswith("folder-") and study.config["data"]["folder_is_cifar10"]
    return (name == "cifar10" or declared) and classes == images.CIFAR10.classes


def is_reports_pair(study: Study) -> bool:
    """Return whether the compared arms and the network are those of the report's claims."""
    if compared_arms(study) != (BASELINE, BATCHNORM):
        return False
    return all(
        study.runs[arm][0].results.model == REPORT_MODEL for arm in study.arms if study.runs[arm]
    )


def study_claims(study: Study) -> tuple[Claim, ...]:
    """Return the claims of a study that its dataset can decide.

    A study of norms has the course report's, if it has its two arms and its network. An experiment
    file without claims asks whether each arm is better than the control.
    """
    claims = study.claims
    if not claims and is_reports_pair(study):
        claims = published.claims
    elif not claims and study.control:
        claims = against_control(study.arms, study.control)
    return on_dataset(claims, is_cifar10(study))


def two_stages(study: Study, paired: dict[str, Any]) -> dict[str, Any] | None:
    """Return the interval of the difference by Stein's procedure, for a study with `half_width`."""
    settings = study.config.get("study", {})
    wanted = settings.get("half_width")
    if wanted is None or not paired:
        return None
    stage = settings["seeds"]
    interval = stein_interval(paired["test_accuracy"]["differences"], stage)
    return {
        "first_stage": stage,
        "half_width": wanted,
        "interval": None if interval is None else list(interval),
    }


def summarise(study: Study) -> dict[str, Any]:
    """Return every number of a study, as data for JSON.

    Arms without a finished run are only in `missing`. `paired`, `mcnemar` and
    `convergence.epochs_saved` are empty without two arms that share a seed. `against_first` has
    every other arm, with p-values adjusted for their number. Every mean and difference has the
    rule of its interval (`interval_rule`), its variances (`variance_of_mean`), and the reason for
    a missing interval (`no_interval`). A claim without a seed pair has no row.
    """
    names = {arm: study.label(arm) for arm in study.arms}
    finished = {arm: study.runs[arm] for arm in study.arms if study.runs[arm]}
    runs = [run for row in finished.values() for run in row]
    arms = compared_arms(study)
    pairs = study.pairs(*arms) if arms else []
    paired = summarise_pairs(pairs) if pairs else {}
    return {
        "dataset": nan_to_none(msgspec.to_builtins(study.dataset)),
        "title": study.title,
        "arms": list(finished),
        "labels": names,
        "seeds": list(study.seeds),
        "missing": [list(pair) for pair in study.missing],
        "diverged": [list(pair) for pair in study.diverged],
        "epochs": max(len(run.results.history) for run in runs),
        "device": joined(runs, "device"),
        "versions": joined_versions(runs),
        "git_revision": joined(runs, "git_revision"),
        "spent": time_spent(runs),
        "per_arm": {arm: summarise_arm(row) for arm, row in finished.items()},
        "paired": paired,
        "two_stages": two_stages(study, paired),
        "against_first": against_first(study),
        "mcnemar": [{"seed": a.seed, **mcnemar(a.correct, b.correct)} for a, b in pairs],
        "convergence": {
            **{arm: summarise_convergence(row) for arm, row in finished.items()},
            "epochs_saved": epochs_saved(pairs) if pairs else {},
        },
        "claims": claim_rows(study, study_claims(study)),
        "reason_no_intervals": _reason(study, len(pairs), paired),
    }
