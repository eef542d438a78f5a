"""Samples to compare: one number per seed, and for test metrics one number per image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_jax.study.collect import Run
from cifar_jax.study.statistics import (
    LEVEL,
    Estimate,
    Interval,
    bootstrap_interval,
    cohens_dz,
    estimate,
    holm,
    seeds_for_power,
    sign_flip_p,
    standard_deviation,
)

Pair = tuple[Run, Run]


@dataclass(frozen=True, eq=False)
class Sample:
    """One quantity over the seeds of an arm, or one difference over seed pairs.

    Attributes:
        values: (seeds,).
        images: float64 (N,), the quantity of each test image, averaged over the seeds. None
            if it does not depend on test images.
        least, most: the range of its mean.
        resolution: change of a value by one test image; 0 if it may be arbitrarily small.
    """

    values: Sequence[float]
    images: np.ndarray | None = None
    least: float = -math.inf
    most: float = math.inf
    resolution: float = 0.0

    def scaled(self, factor: float) -> "Sample":
        """Convert to another unit, for example fractions to points."""
        return Sample(
            [factor * value for value in self.values],
            None if self.images is None else factor * self.images,
            factor * self.least,
            factor * self.most,
            factor * self.resolution,
        )

    def estimate(self, level: float = LEVEL) -> Estimate:
        return estimate(self.values, self.images, self.least, self.most, self.resolution, level)


def describe(sample: Sample) -> dict[str, Any]:
    """Return mean, standard deviation and 95 % intervals, or None for each that is undefined.

    The bootstrap resamples only the seeds, so it is None if the test images' error counts. It is
    None with more than `MANY_SEEDS` seeds, too.
    """
    found = sample.estimate()
    parts = dict(zip(("seeds", "test_images"), (e.variance for e in found.errors), strict=False))
    return {
        "n": len(sample.values),
        "mean": found.mean,
        "std": standard_deviation(sample.values),
        "ci_t": _ends(found.interval),
        "ci_bootstrap": _ends(bootstrap_interval(sample.values) if _of_seeds(found) else None),
        "interval_rule": found.rule,
        "no_interval": found.reason,
        "variance_of_mean": {"seeds": None, "test_images": None} | parts,
        "values": list(sample.values),
    }


def compare(sample: Sample) -> dict[str, Any]:
    """Return the statistics of a difference over seed pairs.

    Sign flips, Cohen's d_z and the number of seeds use only the seeds, so they are None if the
    test images' error counts. Sign flips are None with more than `MANY_SEEDS` seeds, too.
    """
    row = describe(sample)
    found = sample.estimate()
    only_seeds = _of_seeds(found)
    dz = cohens_dz(sample.values) if only_seeds else None
    return {
        "n": row["n"],
        "mean_difference": row["mean"],
        "std": row["std"],
        "ci_t": row["ci_t"],
        "ci_bootstrap": row["ci_bootstrap"],
        "interval_rule": row["interval_rule"],
        "no_interval": row["no_interval"],
        "variance_of_mean": row["variance_of_mean"],
        "p_t": found.p,
        "p_sign_flip": sign_flip_p(sample.values) if only_seeds else None,
        "cohens_dz": dz,
        "seeds_for_power_80": seeds_for_power(dz),
        "differences": row["values"],
    }


def with_holm(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to rows of `compare` the p-values adjusted by Holm's method for the number of rows.

    A difference without a p-value, because all its seeds are equal, counts as a test with p = 1.
    """
    found = list(rows)
    for key in ("p_t", "p_sign_flip"):
        tested = [1.0 if row[key] is None and row["n"] > 1 else row[key] for row in rows]
        found = [
            {**row, f"{key}_holm": None if row[key] is None else p}
            for row, p in zip(found, holm(tested), strict=True)
        ]
    return found


def _of_seeds(found: Estimate) -> bool:
    return found.rule == "seeds"


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def run_metrics(run: Run) -> dict[str, float]:
    """Return the metrics of one run. Accuracies are fractions."""
    results = run.tested
    return {
        "test_accuracy": results.test_accuracy,
        "test_loss": results.test_loss,
        "val_accuracy": run.curve("val_accuracy")[-1],
        "train_seconds": results.train_seconds,
        **{
            f"class:{name}": value
            for name, value in results.per_class_accuracy.items()
            if value is not None
        },
    }


def _image_metrics(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return the test metrics of each image, averaged over the runs: float64 (N,).

    The metric `class:<name>` is the accuracy on that class, and has only its images.
    """
    right = np.mean([run.correct for run in runs], axis=0)
    losses = sum(run.losses for run in runs) / len(runs)
    classes = runs[0].results.dataset.classes
    each = {f"class:{name}": right[runs[0].label == label] for label, name in enumerate(classes)}
    return {"test_accuracy": right, "test_loss": losses, **each}


def arm_samples(runs: Sequence[Run]) -> dict[str, Sample]:
    """Return the samples of an arm's metrics."""
    tables, images = [run_metrics(run) for run in runs], _image_metrics(runs)
    bounds = {"test_loss": math.inf, "train_seconds": math.inf}
    found = {}
    for name in tables[0]:
        values, each = [table[name] for table in tables], images.get(name)
        if each is None or name in bounds:
            found[name] = Sample(values, each, 0.0, bounds.get(name, 1.0))
        else:
            found[name] = accuracy(values, each)
    return found


def accuracy(values: Sequence[float], images: np.ndarray) -> Sample:
    """Return a sample of the seeds' accuracies, (seeds,), and each image's accuracy, (N,)."""
    return Sample(values, images, 0.0, 1.0, 1 / len(images))


def pair_samples(pairs: Sequence[Pair]) -> dict[str, Sample]:
    """Return the metrics of the second arm minus those of the first.

    `relative_seconds` is the ratio of their times minus 1.
    """
    first, second = (arm_samples(runs) for runs in zip(*pairs, strict=True))
    found = {name: difference(first[name], second[name]) for name in first}
    ratios = zip(second["train_seconds"].values, first["train_seconds"].values, strict=True)
    found["relative_seconds"] = Sample([b / a - 1 for b, a in ratios], least=-1.0)
    return found


def difference(first: Sample, second: Sample) -> Sample:
    """Return second minus first, seed by seed."""
    images = None
    if first.images is not None and second.images is not None:
        images = second.images - first.images
    return Sample(
        [b - a for a, b in zip(first.values, second.values, strict=True)],
        images,
        second.least - first.most,
        second.most - first.least,
        max(first.resolution, second.resolution),
    )
