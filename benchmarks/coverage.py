"""Simulate how often the 95 % interval of a study covers the true difference.

A study has right and wrong predictions of two arms, for seeds x test images. Each image has a
difficulty that the arms share, and may have another for each arm. Each network is a little better
or worse on all images. Two true differences are compared with the interval. One is that on these
test images over infinitely many seeds, which the rule promises to cover. The other is that on new
images, for which it promises nothing. Student's t interval over only the seeds is shown too.

`benchmarks/_procedures.py` does the same for equivalence tests, for Stein's two stages, and for
studies of equal arms.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _procedures
from benchmarks._cli import integers, make_parser, parse, positive
from benchmarks._timing import show_progress, table, write_json
from cifar_jax.study.samples import Sample, accuracy, difference
from cifar_jax.study.statistics import ROUNDING, Estimate, estimate

Floats = NDArray[np.float64]
EQUAL_ARMS_IMAGES = 1_000
# Predictions of one chunk of studies; a chunk takes about 50 MB.
CHUNK = 4_000_000
FEWEST = 100
COLUMNS = (
    "rule",
    "t alone",
    "rule, accuracy",
    "rule, seeds tie",
    "rule, new images",
    "t alone, new images",
    "no interval",
)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Kind:
    """A kind of study. Standard deviations are of the logit of a right prediction.

    Attributes:
        accuracies: of the arms, on new images.
        difficulty: standard deviation between images, shared by the arms.
        own: additional standard deviation between images, for each arm.
        seed: standard deviation between the networks of an arm.
        guesses: each network always predicts one of two classes.
    """

    accuracies: tuple[float, ...]
    difficulty: float = 3.0
    own: float = 0.0
    seed: float = 0.05
    guesses: bool = False


KINDS = {
    "no effect": Kind((0.75, 0.75)),
    "+3 points": Kind((0.75, 0.78), own=1.0),
    "other images right": Kind((0.75, 0.75), own=1.5),
    "large luck of seeds": Kind((0.75, 0.75), seed=0.3),
    "nearly all right": Kind((0.98, 0.985), own=1.0),
    "random guessing": Kind((0.5, 0.5), difficulty=0.0, seed=0.0),
    "one class for all": Kind((0.5, 0.5), guesses=True),
}


def _centre(accuracy: float, spread: float) -> float:
    """Return the mean of normal logits with this spread and mean probability `accuracy`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)

    def gap(centre: float) -> float:
        return float(np.average(special.expit(centre + spread * nodes), weights=weights) - accuracy)

    return float(optimize.brentq(gap, -20.0, 20.0))


class Drawn(NamedTuple):
    """Studies of one arm.

    Attributes:
        right: bool (studies, seeds, images).
        here: (studies,), its true accuracy on these images.
    """

    right: NDArray[np.bool_]
    here: Floats


def draw(kind: Kind, shape: tuple[int, int, int], rng: np.random.Generator) -> list[Drawn]:
    """Draw both arms of some studies, (studies, seeds, images)."""
    studies, seeds, images = shape
    if kind.guesses:
        label = rng.random((studies, 1, images)) < 0.5
        said = [rng.random((studies, seeds, 1)) < 0.5 for _ in kind.accuracies]
        return [Drawn(one == label, np.full(studies, 0.5)) for one in said]
    shared = rng.normal(0, kind.difficulty, (studies, images))
    arms = []
    spread = float(np.sqrt(kind.difficulty**2 + kind.own**2 + kind.seed**2))
    for mean in kind.accuracies:
        own = rng.normal(0, kind.own, (studies, images))
        logit = _centre(mean, spread) + shared + own
        luck = rng.normal(0, kind.seed, (studies, seeds))
        right = np.empty(shape, bool)
        for seed in range(seeds):
            chance = special.expit(logit + luck[:, seed, None])
            right[:, seed] = rng.random((studies, images)) < chance
        here = sum(
            weight * special.expit(logit + kind.seed * node).mean(axis=1)
            for node, weight in zip(NODES, WEIGHTS, strict=True)
        )
        arms.append(Drawn(right, np.asarray(here)))
    return arms


def _covers(found: Estimate, truth: float) -> float:
    if found.interval is None:
        return np.nan
    return float(found.interval[0] <= truth <= found.interval[1])


def _seeds_alone(sample: Sample, truth: float) -> float:
    """Return Student's interval, which is a point if all seeds are equal."""
    found = estimate(sample.values)
    return float(found.mean == truth) if found.interval is None else _covers(found, truth)


def measure(kind: Kind, images: int, seeds: int, studies: int) -> dict[str, float | None]:
    """Return the coverage in per cent of the studies with an interval, and the share without.

    None for fewer than a hundred studies.
    """
    rng = np.random.default_rng([images, seeds, *map(ord, repr(kind))])
    new = kind.accuracies[1] - kind.accuracies[0]
    rows = []
    while len(rows) < studies:
        count = min(max(1, CHUNK // (seeds * images)), studies - len(rows))
        first, second = draw(kind, (count, seeds, images), rng)
        here = second.here - first.here
        for at in range(count):
            a, b = (
                accuracy(arm.right[at].mean(axis=1).tolist(), arm.right[at].mean(axis=0))
                for arm in (first, second)
            )
            gain = difference(a, b)
            found = gain.estimate()
            rows.append(
                (
                    _covers(found, here[at]),
                    _seeds_alone(gain, here[at]),
                    _covers(a.estimate(), first.here[at]),
                    _covers(found, here[at]) if np.ptp(gain.values) < ROUNDING else np.nan,
                    _covers(found, new),
                    _seeds_alone(gain, new),
                    float(found.interval is None),
                )
            )
    values = np.array(rows)
    has = np.isfinite(values).sum(axis=0) >= FEWEST
    means = np.where(has, np.nanmean(np.where(has, values, 0.0), axis=0), np.nan)
    return {
        name: round(100 * float(mean), 1) if np.isfinite(mean) else None
        for name, mean in zip(COLUMNS, means, strict=True)
    }


def equal_arms(studies: int) -> list[dict[str, Any]]:
    """Return how often a study of four equal arms supports a difference, in per cent."""
    rows = []
    for name in ("no effect", "large luck of seeds"):
        kind = replace(KINDS[name], accuracies=(0.75,) * 4)
        for seeds in _procedures.SEEDS:
            rng = np.random.default_rng([seeds, *map(ord, name)])
            found: list[tuple[bool, bool, bool]] = []
            while len(found) < studies:
                count = min(CHUNK // (seeds * EQUAL_ARMS_IMAGES), studies - len(found))
                arms = draw(kind, (count, seeds, EQUAL_ARMS_IMAGES), rng)
                found += [
                    _procedures.equal_arms([a.right[at] for a in arms]) for at in range(count)
                ]
            better, differs, any_differs = (
                round(100 * float(x), 2) for x in np.mean(found, axis=0)
            )
            rows.append(
                {
                    "kind": name,
                    "seeds": seeds,
                    "better": better,
                    "either direction": differs,
                    "any of three, Holm": any_differs,
                }
            )
    return rows


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each kind of study, number of test images and number of seeds."""
    rows = []
    for name, kind in KINDS.items():
        for images in args.images:
            for seeds in args.seeds:
                show_progress(f"{name}: {images:,} images, {seeds} seeds")
                found = measure(kind, images, seeds, args.studies)
                rows.append({"kind": name, "images": images, "seeds": seeds, **found})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, print a table, write a JSON."""
    parser = make_parser("coverage", __doc__)
    parser.add_argument(
        "--images", type=integers, default=[20, 100, 1000, 10_000], help="(20,100,1000,10000)"
    )
    parser.add_argument("--seeds", type=integers, default=[2, 3, 5, 10], help="(2,3,5,10)")
    parser.add_argument("--studies", type=positive, default=2000, help="of each cell (2000)")
    parser.add_argument(
        "--simulated", type=positive, default=10_000, help="studies of each procedure (10000)"
    )
    parser.add_argument(
        "--equal-arms", type=positive, default=10_000, help="studies of equal arms (10000)"
    )
    args = parse(
        parser, argv, images=[20, 1000], seeds=[2, 5], studies=200, simulated=500, equal_arms=200
    )

    parts = {"coverage in %": run(args)}
    show_progress("equivalence, two stages, equal arms")
    parts |= {
        "equivalence in %": _procedures.equivalence(args.simulated),
        "two stages in %": _procedures.two_stages(args.simulated),
        "equal arms in %": equal_arms(args.equal_arms),
    }
    show_progress("")
    for title, rows in parts.items():
        print(f"\n{title}")
        print(table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows]))
    counts = {
        "studies": args.studies,
        "simulated": args.simulated,
        "studies of equal arms": args.equal_arms,
    }
    write_json(args.output, counts | parts)
    print(f"written: {args.output}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
