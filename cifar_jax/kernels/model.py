"""A Flax model with faster bodies for its layers."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.core.train import Experiment, TrainState
from cifar_jax.kernels.modules import interceptor
from cifar_jax.kernels.rewrite import operations, rewrite
from cifar_jax.kernels.rules import SLOW_IN_LOOPS, rules

_ARRAYS = (jax.Array, np.ndarray)


@dataclass(frozen=True)
class FastModel:
    """A model whose `apply` runs faster; attributes other than these are the model's own.

    Attributes:
        model: any Flax module.
        platform: JAX's name of the backend that the program is for; None for the default one.
    """

    model: nn.Module
    platform: str | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def _platform(self) -> str:
        return self.platform or jax.default_backend()

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """As `flax.linen.Module.apply`: same arguments, same result.

        It has reverse-mode derivatives alone.
        """
        leaves, structure = jax.tree.flatten((args, kwargs))

        def forward(arrays: list[Any]) -> Any:
            left = iter(arrays)
            filled = [next(left) if isinstance(leaf, _ARRAYS) else leaf for leaf in leaves]
            args, kwargs = jax.tree.unflatten(structure, filled)
            with nn.intercept_methods(interceptor(self._platform)):
                return self.model.apply(*args, **kwargs)

        arrays = [leaf for leaf in leaves if isinstance(leaf, _ARRAYS)]
        return rewrite(forward, rules(self._platform))(arrays)


def fast(model: nn.Module, platform: str | None = None) -> FastModel:
    """Return the model with faster bodies for its layers.

    Args:
        model: any Flax module.
        platform: JAX's name of the backend that the program is for; None for the default one.
    """
    return FastModel(model, platform)


def has_slow_layers(program: Any) -> bool:
    """Return whether a traced program, a `ClosedJaxpr`, has operations of `slow_layers`.

    They need not be slow: that depends on the platform.
    """
    return bool(operations(program.jaxpr, SLOW_IN_LOOPS))


def slow_layers(
    experiment: Experiment, state: TrainState, image_shape: tuple[int, ...]
) -> list[str]:
    """Return the layers that make a step slow in a loop on a CPU; none for another platform.

    In a loop XLA computes their gradients up to a hundred times slower than in a program of one
    step. A model without `fast` keeps all its convolutions and poolings.

    Args:
        state: of one run; its shapes suffice.
        image_shape: (H, W, C).

    Returns:
        Lines such as "conv_general_dilated in conv1".
    """
    model = experiment.model
    if (getattr(model, "platform", None) or jax.default_backend()) != "cpu":
        return []

    def forward(state: TrainState, images: jax.Array) -> Any:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        x, rngs = experiment.inputs.evaluate(images), {"dropout": state.key}
        return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])

    images = jax.ShapeDtypeStruct((experiment.batch_size, *image_shape), jnp.uint8)
    jaxpr = jax.make_jaxpr(forward)(state, images).jaxpr
    lines = []
    for name, path in operations(jaxpr, SLOW_IN_LOOPS):
        modules = [part for part in path.split("/")[1:] if "." not in part]  # no Model.method
        lines.append(f"{name} in {'/'.join(modules) or 'the model'}")
    return list(dict.fromkeys(lines))
