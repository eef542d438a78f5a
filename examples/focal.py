"""Does the focal loss beat cross-entropy on balanced classes?

Command: python -m cifar_jax.main study examples/focal.py --seeds 10
Cost: 3 minutes for the short study; in full, with ten seeds, about 4 hours on 2 CPU cores.
Answer: undecided (-0.31 points, 95 % interval -2.91 to +2.29).

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

The focal loss (Lin et al. 2017, arXiv 1708.02002) gives less weight to images that are already
right: an image whose class has probability p counts (1 - p) ** gamma times. With gamma 0 it is
cross-entropy. gamma is a hyper-parameter, so other values need no new compilation:

    python -m cifar_jax.main study examples/focal.py --arms focal --sweep hyper.gamma=0,0.5,1,2
"""

import flax.struct
import jax.numpy as jnp
import optax

import cifar_jax as cj


@flax.struct.dataclass
class FocalHyper(cj.Hyper):
    gamma: float = 2.0


def focal_loss(logits, targets, hyper):
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)  # -log(p), (B,)
    loss = jnp.maximum(loss, 1e-6)  # At 0 the gradient of a power below 1 is not finite.
    return jnp.mean((1 - jnp.exp(-loss)) ** hyper.gamma * loss)


model = cj.CNN(norm="batch")
arms = {
    "cross_entropy": cj.Experiment(model=model),
    "focal": cj.Arm(cj.Experiment(model=model, loss=focal_loss), FocalHyper()),
}
labels = {"cross_entropy": "cross-entropy", "focal": "focal loss"}
claims = [cj.better("focal", "cross_entropy")]
