"""Does a modern recipe beat the usual one for ResNet-18?

Command: python -m cifar_jax.main study examples/resnet18_96.py --seeds 10
Cost: 26 minutes for the short study; in full it needs a GPU, and was not run.
Answer: undecided (-3.44 points, 95 % interval -8.51 to +1.64).

Answer and cost are of a short study: `WIDTHS = (16, 32, 64, 128)`, 5,000 images, 4 epochs, 3 seeds.
docs/gallery.md has its command. 2 cores of an AMD EPYC beside much other work, 2026-11-28.

Both arms train ResNet-18 for 30 epochs with Nesterov's momentum, flips and crops. The usual arm
has a cosine schedule. The modern arm adds four tricks:

- one cycle of the learning rate (Smith & Topin 2018, arXiv 1708.07120);
- a running mean of the parameters, which validation and test use, as in `ema.py`;
- label smoothing (Szegedy et al. 2016, arXiv 1512.00567);
- cutout (DeVries & Taylor 2017, arXiv 1708.04552).

The aim is 96 % on CIFAR-10. On a CPU it computes in float32, which is faster there than bfloat16.
"""

from typing import NamedTuple

import jax
import optax

import cifar_jax as cj

WIDTHS = (64, 128, 256, 512)  # of the stages; (16, 32, 64, 128) suits a laptop
DECAY = 0.99  # of the running mean of the parameters, and of BatchNorm's statistics
DTYPE = "float32" if jax.default_backend() == "cpu" else "bfloat16"


# The code of `ema.py`. A study keeps a copy of this file, not of what it imports.
class WithMean(NamedTuple):
    sgd: optax.OptState
    mean: optax.Params


def nesterov_with_mean(hyper, schedule):
    sgd = cj.nesterov(hyper, schedule)

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


def resnet18(**options):
    return cj.ResNet(
        blocks=(2, 2, 2, 2), widths=WIDTHS, shortcut="project", norm="batch", **options
    )


USUAL = cj.Experiment(
    model=resnet18(),
    inputs=cj.Inputs(dtype=DTYPE),
    optimizer=cj.nesterov,
    schedule=cj.Cosine(),
    batch_size=512,
    epochs=30,
    precision=None,
    eval_batch_size=1000,
)
MODERN = cj.Experiment(
    model=resnet18(norm_momentum=DECAY),
    inputs=cj.Inputs(mix=(cj.Cutout(8),), dtype=DTYPE),
    loss=cj.LabelSmoothing(0.1),
    optimizer=nesterov_with_mean,
    schedule=cj.OneCycle(peak_at=0.25),
    evaluated=mean_parameters,
    batch_size=512,
    epochs=30,
    precision=None,
    eval_batch_size=1000,
)
HYPER = cj.Hyper(learning_rate=0.4, momentum=0.9, weight_decay=5e-4)

arms = {"usual": cj.Arm(USUAL, HYPER), "modern": cj.Arm(MODERN, HYPER)}
claims = [cj.better("modern", "usual")]
