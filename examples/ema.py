"""Does a running mean of the parameters beat the last parameters?

Command: python -m cifar_jax.main study examples/ema.py --seeds 10
Cost: 2 minutes for the short study; in full, with ten seeds, about 3 hours on 2 CPU cores.
Answer: undecided (+1.55 points, 95 % interval -0.23 to +3.33).

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

After each step, mean = 0.99 * mean + 0.01 * parameters, an average of about 100 steps. Both arms
train in the same way. Validation and test use the mean in the second arm.

BatchNorm's running statistics belong to the parameters. They are a running mean too, of the
batches, so the second arm keeps them with the same 0.99 instead of 0.9. Then parameters and
statistics are means over the same steps.
"""

from typing import NamedTuple

import optax

import cifar_jax as cj

DECAY = 0.99


class WithMean(NamedTuple):
    sgd: optax.OptState
    mean: optax.Params


def sgd_with_mean(hyper, schedule):
    sgd = cj.sgd(hyper, schedule)

    def init(params):
        return WithMean(sgd.init(params), mean=params)

    def update(gradients, state, params):
        updates, sgd_state = sgd.update(gradients, state.sgd, params)
        after = optax.apply_updates(params, updates)
        mean = optax.incremental_update(after, state.mean, 1 - DECAY)
        return updates, WithMean(sgd_state, mean)

    return optax.GradientTransformation(init, update)


def mean_parameters(state):
    return state.opt_state.mean, state.batch_stats


arms = {
    "last": cj.Experiment(model=cj.CNN(norm="batch")),
    "mean": cj.Experiment(
        model=cj.CNN(norm="batch", norm_momentum=DECAY),
        optimizer=sgd_with_mean,
        evaluated=mean_parameters,
    ),
}
labels = {"last": "last parameters", "mean": "mean parameters"}
claims = [cj.better("mean", "last")]
