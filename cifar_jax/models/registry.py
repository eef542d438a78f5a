"""The networks by name."""

from typing import Any

import flax.linen as nn

from cifar_jax.models.cnn import CNN
from cifar_jax.models.resnet import ResNet

_IMAGENET = {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "shortcut": "project"}
# 6n + 2 layers have weights: a stem, three stages of n blocks of two, and the last.
_BLOCKS = {"20": 3, "32": 5, "56": 9}
_OPTIONS: dict[str, dict[str, Any]] = {
    "resnet18": _IMAGENET,
    **{f"resnet{depth}": {"blocks": (n, n, n)} for depth, n in _BLOCKS.items()},
    **{f"plain{depth}": {"blocks": (n, n, n), "shortcut": "none"} for depth, n in _BLOCKS.items()},
}


def first_width(name: str) -> int:
    """Channels of a network's first convolution, of which all other widths are multiples."""
    if name == "cnn":
        return CNN.widths[0]
    widths: tuple[int, ...] = _OPTIONS[name].get("widths", ResNet.widths)
    return widths[0]


def network(name: str, *, zero_init: bool = False, **options: Any) -> nn.Module:
    """A network; `HEAD` of its class names its last layer.

    Args:
        name: one of `cifar_jax.config.MODELS`.
        zero_init: of networks with shortcuts.
        options: what all networks have: num_classes, norm, dropout, norm_groups, norm_momentum and
            frozen; see `CNN`.
    """
    if name == "cnn":
        return CNN(**options)
    return ResNet(**_OPTIONS[name], zero_init=zero_init, **options)
