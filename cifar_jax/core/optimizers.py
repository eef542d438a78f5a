"""Other optimisers than the protocol's. See `optim.py` for how to call them."""

import optax

from cifar_jax.core.optim import Hyper


def nesterov(hyper: Hyper, schedule: optax.Schedule) -> optax.GradientTransformation:
    """PyTorch's `SGD(nesterov=True)`: p <- p - learning_rate * (g + momentum * buffer).

    g, with weight decay, and the buffer are those of `sgd`.
    """
    decay = optax.add_decayed_weights(hyper.weight_decay)
    return optax.chain(decay, optax.sgd(schedule, momentum=hyper.momentum, nesterov=True))


def adamw(hyper: Hyper, schedule: optax.Schedule) -> optax.GradientTransformation:
    """PyTorch's `AdamW` (Loshchilov & Hutter 2019, arXiv 1711.05101), beta2 0.999, eps 1e-8.

    p <- p - learning_rate * (m / (sqrt(v) + eps) + weight_decay * p), for every parameter p. m and
    v are Adam's corrected moments of the gradient.
    """
    return optax.adamw(schedule, b1=hyper.momentum, weight_decay=hyper.weight_decay)
