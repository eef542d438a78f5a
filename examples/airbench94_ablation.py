"""What is each trick of the speedrun's recipe worth?

Command: python -m cifar_jax.main study examples/airbench94_ablation.py --seeds 10
Cost: 90 minutes for the short study; in full it needs a GPU, and was not run.
Answer: undecided for each of the fifteen tricks, in the short study; see docs/speedrun.md.

Answer and cost are of a short study: `WIDTHS = (16, 32, 32)`, 12,500 images, 2 epochs, 3 seeds.
docs/gallery.md has its command. 2 cores of an AMD EPYC beside other work, 2026-11-28.

The control is the whole recipe of `airbench94.py`. Each other arm lacks one trick, so a negative
difference is what the trick is worth. Only Muon's arm has a learning rate of its own, that of the
record before it. A laptop can try it with a narrow network, see `WIDTHS`.
"""

from dataclasses import replace

import airbench94
import jax
import jax.numpy as jnp
from airbench94 import HYPER, RECIPE, alternating_flip, translate

import cifar_jax as cj

WIDTHS = (64, 256, 256)  # of the convolutions; (16, 32, 32) suits a laptop


def model(**changes):
    return airbench94.AirNet(widths=WIDTHS, **changes)


def optimizer(**changes):
    return airbench94.AirOptimizer(rate_scale=WIDTHS[-1] / 256, **changes)


def random_flip(key, images):
    """Mirror each image with probability 0.5 in each epoch."""
    flip = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def usual_head(key, shape, dtype=jnp.float32):
    """PyTorch's initial values, without the recipe's division by the number of channels."""
    return shape[0] * airbench94.uniform(key, shape, dtype)


def inputs(*augment):
    return replace(RECIPE.inputs, augment=augment)


FULL = replace(RECIPE, model=model(), optimizer=optimizer())
SGD = cj.Hyper(0.0015, weight_decay=HYPER.weight_decay)
EQUAL = optimizer(bias_rate=airbench94.AirOptimizer.bias_rate / 64)

without = {
    "whitening": replace(FULL, model=model(whitened=False)),
    "identity": replace(FULL, model=model(conv_init=airbench94.uniform)),
    "alternation": replace(FULL, inputs=inputs(random_flip, translate)),
    "flip": replace(FULL, inputs=inputs(translate)),
    "translation": replace(FULL, inputs=inputs(alternating_flip)),
    "norm_momentum": replace(FULL, model=model(norm_momentum=0.9)),
    "frozen_scale": replace(FULL, model=model(norm_scale=True)),
    "gelu": replace(FULL, model=model(activation=cj.nn.relu)),
    "scaled_head": replace(FULL, model=model(head_init=usual_head)),
    "normalised": replace(FULL, optimizer=optimizer(normalised=False)),
    "bias_rate": replace(FULL, optimizer=EQUAL),
    "schedule": replace(FULL, schedule=cj.constant),
    "smoothing": replace(FULL, loss=cj.cross_entropy),
    "views": replace(FULL, model=model(averaged=False)),
}
arms = {
    "full": cj.Arm(FULL, HYPER),
    **{f"no_{name}": cj.Arm(experiment, HYPER) for name, experiment in without.items()},
    "no_muon": cj.Arm(replace(FULL, optimizer=optimizer(muon=False)), SGD),
}
labels = {
    "full": "the whole recipe",
    "no_whitening": "first convolution trained",
    "no_identity": "no identity in the initial values",
    "no_alternation": "random flips",
    "no_flip": "no flips",
    "no_translation": "no translations",
    "no_norm_momentum": "BatchNorm's momentum 0.9",
    "no_frozen_scale": "BatchNorm's scale trained",
    "no_gelu": "ReLU",
    "no_scaled_head": "head with usual initial values",
    "no_normalised": "Muon without normalised weights",
    "no_bias_rate": "biases 64 times as slow",
    "no_schedule": "constant learning rate",
    "no_smoothing": "no label smoothing",
    "no_views": "one view of a test image",
    "no_muon": "SGD instead of Muon",
}
claims = [cj.better("full", name) for name in arms if name != "full"]
