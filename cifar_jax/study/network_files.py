"""Open a network that another program trained: a torchvision ResNet in a safetensors file.

Names and shapes of the tensors decide the network: the blocks of each stage, basic or bottleneck,
and the stem. A 7x7 stem is that for ImageNet: images of 224x224 pixels, normalised by ImageNet's
mean and deviation. A 3x3 stem is that for small images: 32x32 pixels, normalised by CIFAR-10's.
"""

import re
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from cifar_jax.config.build import for_device
from cifar_jax.core.inputs import Inputs
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Experiment, init_state
from cifar_jax.data.sources.contents import IMAGE_SHAPE
from cifar_jax.errors import UserError
from cifar_jax.methods.layer_rates import parameter_name
from cifar_jax.runner.pretrained import Source, open_safetensors
from cifar_jax.runner.transfer import own_shapes, take
from cifar_jax.study.imagenet import ImageNetResNet
from cifar_jax.study.network import Network

IMAGENET_SHAPE = (224, 224, 3)
IMAGENET = Inputs(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SAFETENSORS = ".safetensors"


def numbered(count: int) -> tuple[str, ...]:
    """Return names for classes without names: "class 0", "class 1", ..."""
    return tuple(f"class {label}" for label in range(count))


def _architecture(source: Source) -> tuple[nn.Module, Inputs, tuple[int, ...]] | str:
    """Return the model of a file's tensors, its inputs and image shape. Or why it is unknown."""
    shapes = source.shapes
    found = [re.match(r"layer(\d{1,2})\.(\d{1,3})\.conv1\.kernel$", name) for name in shapes]
    places = {(int(m[1]), int(m[2])) for m in found if m}
    stages = range(1, max((stage for stage, _ in places), default=0) + 1)
    blocks = tuple(sum(stage == i for stage, _ in places) for i in stages)
    if not blocks or 0 in blocks or "fc.kernel" not in shapes or "conv1.kernel" not in shapes:
        return "its tensors are not those of a torchvision ResNet (conv1, layer1, ..., fc)"
    if "norm1.mean" not in shapes:
        return "it has no running statistics (bn1.running_mean); only BatchNorm is known"
    last = "conv3" if "layer1.0.conv3.kernel" in shapes else "conv2"
    outer = tuple(shapes.get(f"layer{i}.0.{last}.kernel", (0,))[-1] for i in stages)
    inner = tuple(shapes[f"layer{i}.0.conv1.kernel"][-1] for i in stages)
    classes, stem = shapes["fc.kernel"][-1], shapes["conv1.kernel"]
    if len(stem) == 4 and stem[0] == 7:
        narrow = inner if last == "conv3" else ()
        model = ImageNetResNet(classes, blocks, outer, narrow, stem[-1])
        return model, IMAGENET, IMAGENET_SHAPE
    if last == "conv3":
        return "bottlenecks (conv3) are known with a 7x7 stem alone"
    return ResNet(classes, "batch", blocks, outer, "project"), Inputs(), IMAGE_SHAPE


def open_safetensors_network(path: Path, flag: str) -> Network:
    """Open a torchvision ResNet.

    Args:
        path: of the safetensors file. Class names are the JSON list `classes` of its metadata;
            without it they are "class 0", "class 1", ...
        flag: the user's flag for the path, for messages.

    Raises:
        UserError: it cannot be read, or is another network.
    """
    source = open_safetensors(path, flag)
    known = _architecture(source)
    if isinstance(known, str):
        raise UserError(f"{flag} {path}: {known}")
    model, inputs, shape = known
    experiment = for_device(Experiment(model, inputs))
    init = partial(init_state, experiment, image_shape=shape)
    like = jax.eval_shape(init, jax.random.key(0))
    taken = take(own_shapes(like.params, like.batch_stats), source.shapes, source.read, None)
    if lines := taken.lines():
        raise UserError(f"{flag} {path}: is not a torchvision ResNet: {'; '.join(lines[:3])}")
    for name, value in taken.values.items():
        if not np.isfinite(value).all():
            raise UserError(f"{flag} {path}: {name} has values that are not finite")
    variables = {
        key: jax.tree_util.tree_map_with_path(lambda at, _: taken.values[parameter_name(at)], tree)
        for key, tree in (("params", like.params), ("batch_stats", like.batch_stats))
    }
    count = source.shapes["fc.kernel"][-1]
    classes = source.classes if source.classes and len(source.classes) == count else numbered(count)
    return Network(path, classes, experiment, shape, variables)
