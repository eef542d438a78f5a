"""The file formats of `export`: what each writes, and how its reader opens it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cifar_jax.export import onnx_file, safetensors_file, stablehlo, torch_program
from cifar_jax.export.plain import PlainNetwork, Reader


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        write: from a network and the main file's name to all files, by name.
        load: from the main file's path and the network to a reader of the format.
    """

    write: Callable[[PlainNetwork, str], dict[str, bytes]]
    load: Callable[[Path, PlainNetwork], Reader]


FORMATS = {
    "safetensors": Format(safetensors_file.write, safetensors_file.load),
    "onnx": Format(onnx_file.write, onnx_file.load),
    "stablehlo": Format(stablehlo.write, stablehlo.load),
    "torch": Format(torch_program.write, torch_program.load),
}
