"""Learning rates of single layers, and frozen ones, by patterns of parameter names."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from cifar_jax.core.optim import Hyper, Optimizer


def parameter_name(path: Iterable[Any]) -> str:
    """Join a leaf's path in a tree of dicts: "conv1.kernel"."""
    return ".".join(str(part.key) for part in path)


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches the name of a parameter or of a module that contains it.

    `*`, `?` and `[...]` are as in file names, and `*` matches dots too: `conv1`, `conv*` and
    `*.kernel` all match "conv1.kernel".
    """
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return any(fnmatch.fnmatchcase(prefix, pattern) for prefix in prefixes)


@dataclass(frozen=True)
class LayerRates:
    """Discriminative fine-tuning (Howard & Ruder 2018, arXiv 1801.06146, section 3.2).

    A frozen parameter (factor 0) has no update, no weight decay and no momentum.

    Attributes:
        base: optimiser of the parameters that no pattern matches.
        factors: (pattern, factor of the update); the last pattern that matches counts.
    """

    base: Optimizer
    factors: tuple[tuple[str, float], ...]

    def factor(self, name: str) -> float:
        """Return the factor of a parameter."""
        found = (factor for pattern, factor in reversed(self.factors) if matches(name, pattern))
        return float(next(found, 1.0))

    def __call__(self, hyper: Hyper, schedule: optax.Schedule) -> optax.GradientTransformation:
        base = self.base(hyper, schedule)
        scaled = {str(float(f)): optax.chain(base, optax.scale(f)) for _, f in self.factors}
        scaled |= {"1.0": base, "0.0": optax.set_to_zero()}

        def labels(params: Any) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, _: str(self.factor(parameter_name(path))), params
            )

        return optax.multi_transform(scaled, labels)
