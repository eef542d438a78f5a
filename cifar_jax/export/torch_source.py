"""Write the PyTorch code of a built-in network, which loads its safetensors file."""

from typing import Any

import flax.linen as nn
import jax

from cifar_jax.core.model import CNN
from cifar_jax.core.resnet import ResNet
from cifar_jax.errors import UserError
from cifar_jax.export.builder import Sizes
from cifar_jax.export.plain import PIXELS, PlainNetwork
from cifar_jax.methods.ghost import Ghost

_ACTIVATIONS = {
    nn.relu: "F.relu",
    nn.relu6: "F.relu6",
    nn.elu: "F.elu",
    nn.selu: "F.selu",
    nn.celu: "F.celu",
    nn.leaky_relu: "F.leaky_relu",
    nn.silu: "F.silu",
    nn.gelu: 'partial(F.gelu, approximate="tanh")',
    nn.softplus: "F.softplus",
    nn.sigmoid: "torch.sigmoid",
    nn.tanh: "torch.tanh",
    nn.hard_swish: "F.hardswish",
    nn.hard_sigmoid: "F.hardsigmoid",
    jax.nn.mish: "F.mish",
}

_HEAD = '''\
"""A trained network in PyTorch. `load()(images)` returns logits, float32 (N, {classes}).

Images are {pixels} (N, {height}, {width}, 3), RGB, {values}. It needs torch and safetensors.
Written by {producer}.
"""

{imports}from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

FILE = Path(__file__).with_name({file!r})
CLASSES = {names}
MEAN, STD = torch.tensor({mean}), torch.tensor({std})

'''

_FOOT = """

def load(path=FILE):
    network = Network()
    network.load_state_dict(load_file(path))
    return network.eval()
"""

_CNN = """
class Network(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

    def forward(self, images):
        x = (({images} - MEAN.to(images.device)) / STD.to(images.device)).permute(0, 3, 1, 2)
{blocks}
        x = x.permute(0, 2, 3, 1).flatten(1)  # the features are in the order (H, W, C)
        x = self.act(self.bn{last}(self.dense1(x)))
        return self.dense2(self.dropout(x))
"""

_RESNET = """
def conv(inputs, outputs, size, stride):
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias={bias})


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), {norm}
        self.conv2, self.bn2 = conv(outputs, outputs, 3, 1), {norm}
{shortcut}

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
{end}


def stage(blocks, inputs, outputs, stride):
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, {stem}, 3, 1), {stem_norm}
{stages}
        self.dropout = nn.Dropout({dropout})
        self.fc = nn.Linear({features}, {classes})

    def forward(self, images):
        x = (({images} - MEAN.to(images.device)) / STD.to(images.device)).permute(0, 3, 1, 2)
        x = F.relu(self.bn1(self.conv1(x)))
        x = {calls}
        return self.fc(self.dropout(x.mean((2, 3))))
"""

_SHORTCUTS = {
    "none": ("", "        return F.relu(y)"),
    "pad": (
        "        self.stride, self.new = stride, outputs - inputs",
        "        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))\n"
        "        return F.relu(y + x)",
    ),
    "project": (
        "        self.downsample = nn.Identity()\n"
        "        if (inputs, stride) != (outputs, 1):\n"
        "            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), {norm})",
        "        return F.relu(y + self.downsample(x))",
    ),
}


def torch_source(network: PlainNetwork, file: str) -> str:
    """Return Python code whose `load()` makes a network in PyTorch with the tensors of a file.

    Args:
        network: a `CNN` or a `ResNet`.
        file: name of the safetensors file.

    Raises:
        UserError: it is another network, or has another part without PyTorch code.
    """
    images = {"uint8": "images / 255", "float32": "images"}[network.pixels]
    model, inputs = network.experiment.model, network.experiment.inputs
    others = "allowed formats: onnx, stablehlo, torch"
    if inputs.function is not None:
        raise UserError(f"safetensors: there is no PyTorch code for own inputs; {others}")
    if type(model) is CNN:
        body = _cnn(model, network.image_shape, images)
    elif type(model) is ResNet:
        body = _resnet(model, images)
    else:
        name = type(model).__name__
        raise UserError(f"safetensors: there is no PyTorch code for the model {name}; {others}")
    height, width, _ = network.image_shape
    head = _HEAD.format(
        file=file,
        height=height,
        width=width,
        producer=network.metadata["producer"],
        imports="from functools import partial\n" if "partial(" in body else "",
        classes=len(network.classes),
        names=list(network.classes),
        mean=[float(value) for value in inputs.mean],
        std=[float(value) for value in inputs.std],
        pixels=network.pixels,
        values=PIXELS[network.pixels],
    )
    return head + body + _FOOT


def _norm(model: Any, channels: str | int, kind: str = "2d") -> str:
    """Return the code of a norm layer. Both libraries add 1e-5 to the variance.

    A `Ghost` becomes a BatchNorm, which evaluates alike.
    """
    if model.norm == "none":
        return "nn.Identity()"
    if model.norm == "batch" or isinstance(model.norm, Ghost):
        momentum = "" if model.norm_momentum == 0.9 else f", momentum={1 - model.norm_momentum:g}"
        return f"nn.BatchNorm{kind}({channels}{momentum})"
    if model.norm == "instance" and kind == "1d":
        return "nn.Identity()"
    groups = {"layer": 1, "instance": channels, "group": model.norm_groups}[model.norm]
    return f"nn.GroupNorm({groups}, {channels})"


def _cnn(model: CNN, image_shape: Sizes, images: str) -> str:
    if model.activation not in _ACTIVATIONS:
        name = getattr(model.activation, "__name__", "own")
        raise UserError(
            f"safetensors: there is no PyTorch code for the activation {name}; allowed formats: "
            "onnx, stablehlo, torch"
        )
    layers, blocks, inputs = [], [], image_shape[-1]
    for i, width in enumerate(model.widths, 1):
        layers.append(
            f"self.conv{i}, self.bn{i} = nn.Conv2d({inputs}, {width}, 3, padding=1), "
            + _norm(model, width)
        )
        blocks.append(f"x = F.max_pool2d(self.act(self.bn{i}(self.conv{i}(x))), 2)")
        inputs = width
    height, width = (size >> len(model.widths) for size in image_shape[:2])
    last = len(model.widths) + 1
    layers += [
        f"self.dense1, self.bn{last} = nn.Linear({height * width * inputs}, {model.hidden}), "
        + _norm(model, model.hidden, "1d"),
        f"self.act, self.dropout = {_ACTIVATIONS[model.activation]}, nn.Dropout({model.dropout})",
        f"self.dense2 = nn.Linear({model.hidden}, {model.num_classes})",
    ]
    return _CNN.format(layers=_lines(layers), blocks=_lines(blocks), last=last, images=images)


def _resnet(model: ResNet, images: str) -> str:
    norm = _norm(model, "outputs")
    shortcut, end = _SHORTCUTS[model.shortcut]
    stages, inputs = [], model.widths[0]
    for i, (blocks, width) in enumerate(zip(model.blocks, model.widths, strict=True), 1):
        stages.append(f"self.layer{i} = stage({blocks}, {inputs}, {width}, {min(i, 2)})")
        inputs = width
    calls = "x"
    for i in range(1, len(stages) + 1):
        calls = f"self.layer{i}({calls})"
    return _RESNET.format(
        bias=model.norm == "none",
        norm=norm,
        shortcut=shortcut.format(norm=norm),
        end=end,
        stem=model.widths[0],
        stem_norm=_norm(model, model.widths[0]),
        stages=_lines(stages),
        dropout=model.dropout,
        features=model.widths[-1],
        classes=model.num_classes,
        calls=calls,
        images=images,
    )


def _lines(statements: list[str]) -> str:
    return "\n".join(f"        {line}" for line in statements)
