"""Run the network of an ONNX file by ONNX Runtime, on the CPU.

The file has one input of images and one output of logits. The input is uint8 with values from 0 to
255, or float, normalised as below; (N, H, W, 3) or (N, 3, H, W). A float input gets pixels divided
by 255, minus a mean, divided by a deviation: CIFAR-10's, or ImageNet's from 128 pixels on. If
`images` in the file's metadata says "0 to 1", as `export` writes, it gets pixels divided by 255.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.core.inputs import Inputs
from cifar_jax.errors import UserError, one_line, shown
from cifar_jax.runner.pretrained import LARGEST_FILE, class_names
from cifar_jax.storage import sha256
from cifar_jax.study.network import Network, in_batches
from cifar_jax.study.network_files import IMAGENET, SAFETENSORS, numbered, open_safetensors_network

ONNX = ".onnx"
BATCH = 100  # images in a call, if the file does not fix their number
_SIDE = 32  # pixels of height and width that a file leaves open
_LARGE, _UINT8 = 128, "tensor(uint8)"


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network of an ONNX file. Other attributes and `logits` are as those of `Network`.

    Attributes:
        session: of ONNX Runtime.
        first: whether the channels come first: (N, 3, H, W).
        batch: images in a call.
        unit: whether a float input takes pixels from 0 to 1.
    """

    path: Path
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    digest: str
    session: Any
    first: bool
    batch: int
    unit: bool
    record: None = None
    damaged: tuple[str, ...] = ()

    def _inputs(self, images: np.ndarray) -> np.ndarray:
        if self.session.get_inputs()[0].type != _UINT8:
            inputs = IMAGENET if self.image_shape[0] >= _LARGE else Inputs()
            mean, std = (np.asarray(of, np.float32) for of in (inputs.mean, inputs.std))
            images = images.astype(np.float32) / np.float32(255)
            if not self.unit:
                images = (images - mean) / std
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2) if self.first else images)

    def _run(self, images: np.ndarray) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        try:
            logits: np.ndarray = self.session.run(None, {name: self._inputs(images)})[0]
        except Exception as error:  # ONNX Runtime raises many types.
            raise UserError(f"{self.path}: cannot be run ({one_line(error)})") from None
        return logits

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images, uint8 (N, H, W, C), N > 0: float32 (N, classes).

        Raises:
            UserError: ONNX Runtime cannot compute them, or the output has another shape.
        """
        logits = in_batches(self._run, images, self.batch)
        if logits.shape != (len(images), len(self.classes)):
            raise UserError(f"{self.path}: its output is {logits.shape}; needed: (N, classes)")
        return logits


def open_onnx_network(path: Path, flag: str) -> OnnxNetwork:
    """Open an ONNX file.

    Args:
        path: of the file. Class names are the JSON list `classes` of its metadata; without it they
            are "class 0", "class 1", ...
        flag: the user's flag for the path, for messages.

    Raises:
        UserError: it cannot be read, has no image input, or ONNX Runtime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f'{flag} {path}: needs onnxruntime: pip install -e ".[export]"') from None
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{flag} {path}: is larger than {LARGEST_FILE >> 30} GiB")
        digest = sha256(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # Its errors are raised too.
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror})") from None
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime raises many types.
        raise UserError(f"{flag} {path}: is not an ONNX file ({one_line(error)})") from None
    shape, first, batch = _layout(session, f"{flag} {path}")
    out = session.get_outputs()[0].shape
    if len(out) != 2 or not isinstance(out[1], int):
        raise UserError(f"{flag} {path}: its output is {tuple(out)}; needed: (N, classes)")
    metadata = session.get_modelmeta().custom_metadata_map
    names, unit = class_names(metadata), "0 to 1" in metadata.get("images", "")
    classes = names if names and len(names) == out[1] else numbered(out[1])
    return OnnxNetwork(path, classes, shape, digest, session, first, batch, unit)


def _layout(session: Any, where: str) -> tuple[tuple[int, ...], bool, int]:
    """Return the image's shape (H, W, 3), whether channels come first, and the batch size."""
    inputs = session.get_inputs()
    kinds = [(of.type, len(of.shape)) for of in inputs]
    if kinds not in ([(_UINT8, 4)], [("tensor(float)", 4)]):
        found = ", ".join(f"{of.name} {of.type} {of.shape}" for of in inputs)
        raise UserError(
            f"{where}: its input is {found}; needed: one of uint8 or float, (N, H, H, 3) or "
            "(N, 3, H, H)"
        )
    n, *sizes = inputs[0].shape
    first = sizes[2] != 3
    height, width = (
        size if isinstance(size, int) else _SIDE for size in (sizes[1:] if first else sizes[:2])
    )
    if height != width or 3 not in (sizes[0], sizes[2]):
        raise UserError(
            f"{where}: its input is {inputs[0].shape}; needed: squares of 3 channels, "
            "(N, H, H, 3) or (N, 3, H, H)"
        )
    return (height, width, 3), first, n if isinstance(n, int) else BATCH


AnyNetwork = Network | OnnxNetwork


def open_file(path: Path, flag: str) -> AnyNetwork:
    """Open the network of a `.safetensors` or `.onnx` file; see the two functions.

    Raises:
        UserError: it is neither, or cannot be used.
    """
    if path.suffix == ONNX:
        return open_onnx_network(path, flag)
    return open_safetensors_network(path, flag)


def is_network_file(path: Path) -> bool:
    """Return whether a path names a file with a network, not a directory."""
    return path.suffix in (ONNX, SAFETENSORS) and not path.is_dir()


def class_order(network: AnyNetwork, classes: Sequence[str], flag: str) -> list[int]:
    """Return the network's output of each class of a dataset.

    Args:
        network: of a file.
        classes: of the dataset.
        flag: the user's flag for the file, for messages.

    Raises:
        UserError: it has other classes.
    """
    own, count = network.classes, len(network.classes)
    if count != len(classes):
        raise UserError(
            f"{flag} {network.path}: has {count} classes, and the images have {len(classes)}"
        )
    if own == numbered(count):
        return list(range(count))
    lacking = [name for name in classes if name not in own]
    if lacking:
        raise UserError(f"{flag} {network.path}: has no class {shown(lacking[0])} of the images")
    return [own.index(name) for name in classes]
