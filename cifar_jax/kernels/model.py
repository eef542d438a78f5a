"""A Flax model with faster bodies for its layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cifar_jax.kernels.modules import interceptor
from cifar_jax.kernels.rewrite import operations, rewrite
from cifar_jax.kernels.rules import SLOW_IN_LOOPS, rules

_ARRAYS = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)


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

    def _forward(self, *given: Any) -> tuple[Callable[[list[Any]], Any], list[Any]]:
        """Return `apply` as a function of only the arrays among its arguments, and the arrays."""
        leaves, structure = jax.tree.flatten(given)
        arrays = [leaf for leaf in leaves if isinstance(leaf, _ARRAYS)]

        def forward(arrays: list[Any]) -> Any:
            left = iter(arrays)
            filled = [next(left) if isinstance(leaf, _ARRAYS) else leaf for leaf in leaves]
            args, kwargs = jax.tree.unflatten(structure, filled)
            with nn.intercept_methods(interceptor(self._platform)):
                return self.model.apply(*args, **kwargs)

        return rewrite(forward, rules(self._platform)), arrays

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """As `flax.linen.Module.apply`: same arguments, same result.

        It has only reverse-mode derivatives.
        """
        forward, arrays = self._forward(args, kwargs)
        return forward(arrays)

    def slow_layers(self, *args: Any, **kwargs: Any) -> list[str]:
        """Return the layers that keep an operation that is slow in a loop on a CPU.

        Args:
            args, kwargs: as of `apply`; arrays can be `jax.ShapeDtypeStruct`s.

        Returns:
            Lines such as "conv_general_dilated in conv1"; none for another platform.
        """
        if self._platform != "cpu":
            return []
        forward, arrays = self._forward(args, kwargs)
        found = operations(jax.make_jaxpr(forward)(arrays).jaxpr, SLOW_IN_LOOPS)
        return [f"{name} in {layer or 'the model'}" for name, layer in found]


def fast(model: nn.Module, platform: str | None = None) -> FastModel:
    """Return the model with faster bodies for its layers.

    Args:
        model: any Flax module.
        platform: JAX's name of the backend that the program is for; None for the default one.
    """
    return FastModel(model, platform)
