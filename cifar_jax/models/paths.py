"""Names of parameters, `layer1.0.conv1.kernel`, and patterns for them."""

import fnmatch
from collections.abc import Iterable
from typing import Any

import jax

NORM_LEAVES = ("scale", "bias")


def parameter_name(path: Iterable[Any]) -> str:
    """The name of a leaf, given its path in a tree of dicts: "conv1.kernel"."""
    return ".".join(str(part.key) for part in path)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of dicts by name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {parameter_name(path): leaf for path, leaf in leaves}


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern means a parameter: its name, or that of a module it is in.

    `*`, `?` and `[...]` are as in file names, and `*` goes over dots too: `conv1`, `conv*` and
    `*.kernel` all match "conv1.kernel".
    """
    parts = name.split(".")
    return any(
        fnmatch.fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1)
    )


def is_frozen(layer: str, patterns: Iterable[str]) -> bool:
    """Whether the patterns match both parameters of a norm layer, its scale and its bias."""
    found = tuple(patterns)
    return all(any(matches(f"{layer}.{leaf}", p) for p in found) for leaf in NORM_LEAVES)
