"""Write a network's tensors with PyTorch's names and layouts, and the code that loads them."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cifar_jax.export.plain import PlainNetwork, Reader
from cifar_jax.export.torch_program import torch_reader
from cifar_jax.export.torch_source import torch_source
from cifar_jax.runner.torch_names import our_layout, our_name, their_layout, their_name
from cifar_jax.runner.transfer import named_leaves, replaced

CODE = "load_torch.py"


def torch_tensors(network: PlainNetwork) -> dict[str, np.ndarray]:
    """Return all parameters and running statistics as float32, by PyTorch's names."""
    found = {}
    for tree in (network.variables["params"], network.variables["batch_stats"]):
        for name, leaf in named_leaves(tree).items():
            found[their_name(name)] = their_layout(np.asarray(leaf, np.float32))
    return found


def write(network: PlainNetwork, name: str) -> dict[str, bytes]:
    """Return the file of tensors, and the PyTorch code that makes the network with them.

    Raises:
        UserError: the network or a part of it has no PyTorch code.
    """
    from safetensors.numpy import save

    code = torch_source(network, name)
    content: bytes = save(torch_tensors(network), {"format": "pt", **network.metadata})
    return {name: content, CODE: code.encode()}


def load(path: Path, network: PlainNetwork) -> Reader:
    """Open a file by the code beside it; without PyTorch by our names and layouts."""
    try:
        import torch
    except ImportError:
        name = f"cifar_jax; {CODE} was not run, because PyTorch is not installed"
        program = jax.jit(replace(network, variables=_read(path, network)))
        return Reader(name, lambda images: np.asarray(program(images)))
    code = runpy.run_path(str(path.parent / CODE))  # We just wrote it.
    return torch_reader(torch, code["load"](path))


def _read(path: Path, network: PlainNetwork) -> dict[str, Any]:
    """Return the variables of a network with the tensors of a file."""
    from safetensors.numpy import load_file

    tensors = load_file(path)
    values = {
        our_name(name, value.ndim) or "": our_layout(value) for name, value in tensors.items()
    }
    return {key: replaced(tree, values) for key, tree in network.variables.items()}
