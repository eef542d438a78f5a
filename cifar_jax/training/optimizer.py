"""The optimisers, as optax transformations whose hyper-parameters may be traced."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import optax

from cifar_jax.training.schedules import Scalar

# Beside Muon, AdamW trains biases, norms and the last layer at this share of Muon's rate: 0.0003
# beside 0.02, as Jordan recommends (github.com/KellerJordan/Muon).
ADAMW_BESIDE_MUON = 0.015


@flax.struct.dataclass
class Hyperparams:
    """What a sweep varies without a new program: traced scalars, or arrays under `jax.vmap`.

    Attributes:
        learning_rate: float (), initial.
        momentum: float (), 0.9 in the protocol; no dampening, not Nesterov's. AdamW's beta1.
        weight_decay: float (); coupled for SGD, decoupled for AdamW and Muon.
    """

    learning_rate: Scalar = 0.01
    momentum: Scalar = 0.9
    weight_decay: Scalar = 5e-4


def sgd(
    hyper: Hyperparams, schedule: optax.Schedule, nesterov: bool = False
) -> optax.GradientTransformation:
    """PyTorch's `SGD(momentum, weight_decay, nesterov)`.

    g <- g + weight_decay * p;  buffer <- momentum * buffer + g;  p <- p - learning_rate * buffer,
    for every parameter p, biases and norm parameters included. With `nesterov` the last step is
    p <- p - learning_rate * (g + momentum * buffer).
    """
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay),
        optax.sgd(schedule, momentum=hyper.momentum, nesterov=nesterov),
    )


def adamw(hyper: Hyperparams, schedule: optax.Schedule) -> optax.GradientTransformation:
    """PyTorch's `AdamW`: beta1 is the momentum, beta2 0.999, eps 1e-8.

    Loshchilov & Hutter 2019, arXiv 1711.05101: m and v are Adam's corrected moments of g, and
    p <- p - learning_rate * (m / (sqrt(v) + eps) + weight_decay * p), for every parameter p.
    """
    return optax.adamw(schedule, b1=hyper.momentum, weight_decay=hyper.weight_decay)


def _as_matrices(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` on (..., outputs) arrays as matrices of shape (inputs, outputs).

    A convolution's (3, 3, in, out) kernel becomes (9 * in, out). `optax.contrib.muon` can do so
    itself from optax 0.2.6 on; this works with every version.
    """

    def flat(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), tree)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, state = inner.update(flat(updates), state, None if params is None else flat(params))
        return jax.tree.map(lambda x, like: x.reshape(like.shape), new, updates), state

    return optax.GradientTransformation(lambda params: inner.init(flat(params)), update)


def muon(
    hyper: Hyperparams,
    schedule: optax.Schedule,
    num_classes: int | None = None,
    nesterov: bool = True,
) -> optax.GradientTransformation:
    """Muon for the kernels of hidden layers, AdamW for everything else.

    Jordan et al. 2024, kellerjordan.github.io/posts/muon: the momentum of a kernel, as a matrix of
    inputs by outputs, is replaced by the nearest orthogonal one (roughly: five Newton-Schulz
    steps), times sqrt(max(1, outputs / inputs)); weight decay is decoupled. Biases, norms and the
    last layer get AdamW with beta1 0.9, the same weight decay, and `ADAMW_BESIDE_MUON` of the
    learning rate.

    optax corrects the bias of momentum and gradient before it adds them (Nesterov's way), which
    PyTorch's Muon does not: about 20 steps later the two agree.

    Args:
        hyper: the momentum is Muon's alone; 0.95 is usual.
        schedule: Muon's learning rate.
        num_classes: a dense kernel with so many outputs is taken for the last layer's.
        nesterov: Nesterov's momentum in Muon.
    """

    def label(kernel: jax.Array) -> str:
        last = kernel.ndim == 2 and kernel.shape[-1] == num_classes
        return "muon" if kernel.ndim >= 2 and not last else "adamw"

    hidden = optax.contrib.muon(
        schedule, beta=hyper.momentum, weight_decay=hyper.weight_decay, nesterov=nesterov
    )
    rest = optax.adamw(
        lambda step: ADAMW_BESIDE_MUON * schedule(step), weight_decay=hyper.weight_decay
    )
    return optax.partition(
        {"muon": _as_matrices(hidden), "adamw": rest},
        lambda params: jax.tree.map(label, params),
    )


Make = Callable[[Hyperparams, optax.Schedule], optax.GradientTransformation]


def make_optimizer(name: str, num_classes: int | None) -> Make:
    """The optimiser of this name: "sgd", "nesterov", "adamw" or "muon"."""
    makers: dict[str, Make] = {
        "sgd": sgd,
        "nesterov": lambda hyper, schedule: sgd(hyper, schedule, nesterov=True),
        "adamw": adamw,
        "muon": lambda hyper, schedule: muon(hyper, schedule, num_classes),
    }
    return makers[name]
