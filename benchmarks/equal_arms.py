"""Count how often a study finds a difference between two equal arms.

    python -m benchmarks.equal_arms --studies 20

The arms have the same network and training, and other draws of augmentation and dropout. So their
true difference is zero, and at most 5 % of the studies should show one. Each study has five seeds
of its own. The networks are tiny: a run takes about a second.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax
import numpy as np

import cifar_jax as cj
from benchmarks._cli import make_parser, parse, positive
from benchmarks._timing import write_json
from cifar_jax.study.samples import Sample, compare
from cifar_jax.study.statistics import ALPHA

SEEDS = 5


def other_draws(key: jax.Array, images: jax.Array) -> jax.Array:
    """Crop and flip as the other arm does, with other random numbers."""
    return cj.random_crop_and_flip(jax.random.fold_in(key, 1), images)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser("equal_arms", __doc__)
    parser.add_argument("--studies", type=positive, default=20, help="number of studies (20)")
    args = parse(parser, argv, studies=2)
    data = cj.load("synthetic", train_examples=1024, val_examples=128)
    network = cj.CNN(norm="batch", widths=(8, 8, 16), hidden=32)
    arms = [
        cj.Experiment(network, cj.Inputs(augment=(augment,)), batch_size=64, epochs=4)
        for augment in (cj.random_crop_and_flip, other_draws)
    ]
    seeds, hyper = range(SEEDS * args.studies), cj.Hyper(learning_rate=0.05)
    first, second = (cj.run(arm, data, seeds, hyper).test_accuracy for arm in arms)
    rows = [
        compare(Sample(gain.tolist(), least=-1.0, most=1.0))
        for gain in np.split(second - first, args.studies)
    ]
    shown = sum(row["p_t"] is not None and row["p_t"] < ALPHA for row in rows)
    print(f"{shown} of {args.studies} studies of {SEEDS} seeds show a difference of equal arms")
    results = {
        "studies": args.studies,
        "seeds": SEEDS,
        "shown": shown,
        "test_accuracy": [float(first.mean()), float(second.mean())],
        "differences": [row["mean_difference"] for row in rows],
        "p_values": [row["p_t"] for row in rows],
    }
    write_json(args.output, results)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
