"""Take initial values from another network, tensor by tensor."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.methods.layer_rates import parameter_name

_IMAGENET_STEM, _OUR_STEM = (7, 7), (3, 3)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree of dicts by name: "conv1.kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {parameter_name(path): leaf for path, leaf in leaves}


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 in hex of tensors with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Taken:
    """Tensors taken from a source. Names are such as `layer1.0.conv1.kernel`.

    Attributes:
        values: taken tensors by name.
        kept: names of tensors that keep their random initial value, with the reason.
        unused: names of the source's tensors that the network lacks.
    """

    values: dict[str, np.ndarray]
    kept: dict[str, str]
    unused: list[str]

    def lines(self) -> list[str]:
        """Return a line for each tensor that is not taken."""
        kept = [f"{name}: {why}" for name, why in self.kept.items()]
        return kept + [f"{name}: not in this network, not used" for name in self.unused]


def _misfit(name: str, found: tuple[int, ...], own: tuple[int, ...]) -> str:
    why = f"initial values: {found} in the source, {own} here"
    if name == "conv1.kernel" and (found[:2], own[:2]) == (_IMAGENET_STEM, _OUR_STEM):
        why += "; the 7x7 stem of networks for ImageNet does not fit the 3x3 one for small images"
    return why


def take(
    own: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    new_head: str | None,
) -> Taken:
    """Take every tensor that both networks have with the same name and shape.

    Args:
        own: shapes of the network's parameters and statistics, by name.
        shapes: those of the source.
        read: returns the source's tensor of a name.
        new_head: name of the last layer, which is not taken, if the classes differ. Else None.
    """
    values, kept = {}, {}
    for name, shape in own.items():
        if new_head is not None and name.startswith(f"{new_head}."):
            kept[name] = "initial values: the source has other classes"
        elif name not in shapes:
            kept[name] = "initial values: not in the source"
        elif shapes[name] != shape:
            kept[name] = _misfit(name, shapes[name], shape)
        else:
            values[name] = read(name)
    return Taken(values, kept, [name for name in shapes if name not in own])


def own_shapes(params: Any, batch_stats: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters and statistics by name."""
    leaves = {**named_leaves(params), **named_leaves(batch_stats)}
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def replaced(tree: Any, values: Mapping[str, np.ndarray]) -> Any:
    """Return a tree with some leaves replaced, by name. Dtypes stay."""

    def leaf(path: Any, old: jax.Array) -> jax.Array:
        new = values.get(parameter_name(path))
        # Copy, for the reason in `checkpoint._from_numpy`.
        return old if new is None else jnp.array(new, old.dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)
