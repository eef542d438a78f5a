"""A trained network, ready for export: plain layers that compute in float32."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import numpy as np

import cifar_jax
from cifar_jax.core.train import Experiment
from cifar_jax.errors import counted
from cifar_jax.export.builder import Sizes
from cifar_jax.export.graph import Graph
from cifar_jax.export.trace import trace
from cifar_jax.kernels import FastModel, fast
from cifar_jax.study.network import Network, compiled, forward, in_batches

BATCH = 100  # images in a forward pass
PIXELS = {"uint8": "0 to 255", "float32": "0 to 1"}


@dataclass(frozen=True, eq=False)
class PlainNetwork:
    """A trained network of plain Flax layers.

    Attributes:
        experiment: its model, its inputs and its precision count.
        variables: "params" and "batch_stats".
        image_shape: of an image, (H, W, C).
        classes: their names, in the order of the logits.
        about: facts for readers of the file, by name.
        pixels: "uint8", from 0 to 255, or "float32", from 0 to 1: what the exported network takes.
    """

    experiment: Experiment
    variables: dict[str, Any]
    image_shape: Sizes
    classes: tuple[str, ...]
    about: Mapping[str, str]
    pixels: str = "uint8"

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits, float32 (N, classes), of images (N, H, W, C), see `pixels`."""
        images = images if self.pixels == "uint8" else images * 255
        logits: jax.Array = forward(self.experiment, self.variables, images)
        return logits

    def given(self, images: np.ndarray) -> np.ndarray:
        """Convert uint8 images to what the exported network takes."""
        return images if self.pixels == "uint8" else (images / 255).astype(np.float32)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of uint8 images as they were in training, with the faster layers."""
        model = cast(nn.Module, fast(self.experiment.model))
        program = compiled(replace(self.experiment, model=model))
        return in_batches(partial(program, self.variables), images, BATCH)

    @property
    def graph(self) -> Graph:
        """The network as a list of operators.

        Raises:
            UserError: an operation has no operator; the message names its layer.
        """
        return trace(self, self.image_shape, self.pixels)

    @property
    def metadata(self) -> dict[str, str]:
        """What a reader of a file needs to know, in text."""
        size = ", ".join(map(str, self.image_shape))
        return {
            "producer": f"cifar_jax {cifar_jax.__version__}",
            "images": f"{self.pixels} (N, {size}), RGB, {PIXELS[self.pixels]}; the network "
            "normalises them",
            "logits": f"float32 (N, {len(self.classes)}); their softmax is the probabilities",
            "classes": json.dumps(list(self.classes)),
            **self.about,
        }


class Reader(NamedTuple):
    """A program that reads a file.

    Attributes:
        name: with its version.
        logits: from images as the file takes them, (N, H, W, C), to logits, float32 (N, classes).
    """

    name: str
    logits: Callable[[np.ndarray], np.ndarray]


def in_float32(experiment: Experiment) -> Experiment:
    """Return an experiment of plain layers that computes in full float32."""
    model = experiment.model
    return replace(
        experiment,
        model=model.model if isinstance(model, FastModel) else model,
        inputs=replace(experiment.inputs, dtype="float32"),
        precision="highest",
    )


def plain_network(network: Network, pixels: str = "uint8") -> PlainNetwork:
    """Return a restored network, ready for export; for `pixels` see `PlainNetwork`."""
    record = network.record
    assert record is not None
    about = {
        "dataset": f"{record.dataset.name}, fingerprint {record.dataset.fingerprint[:12]}",
        "trained": counted(len(record.history), "epoch"),
    }
    return PlainNetwork(
        in_float32(network.experiment),
        network.variables,
        network.image_shape,
        network.classes,
        about,
        pixels,
    )
