"""The command `evaluate` for a network of a file, which another program may have trained."""

import numpy as np
from PIL import Image

from cifar_jax.commands.train import say_evaluation
from cifar_jax.config.settings import Config
from cifar_jax.errors import UserError
from cifar_jax.runner.console import Display
from cifar_jax.runner.evaluation import Evaluation, evaluate_logits
from cifar_jax.runner.moved import Moved
from cifar_jax.runner.prepare import open_dataset
from cifar_jax.study.onnx_network import AnyNetwork, class_order

_CHUNK = 1_000  # images


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    """Resize images, uint8 (N, H, W, 3), to (N, side, side, 3) by Lanczos' filter."""
    if images.shape[1:3] == (side, side):
        return images
    size = (side, side)
    return np.stack(
        [np.asarray(Image.fromarray(of).resize(size, Image.Resampling.LANCZOS)) for of in images]
    )


def evaluate_file(
    network: AnyNetwork, flag: str, moved: Moved, display: Display | None = None
) -> Evaluation:
    """Evaluate the network of a file on the test images of a dataset.

    Args:
        network: from `open_file` or `open_onnx_network`.
        flag: the user's flag for the file, for messages.
        moved: names the dataset.
        display: shows the result.

    Raises:
        UserError: the dataset cannot be used, or has other classes.
    """
    display, path = display or Display(), network.path
    if moved.dataset is None:
        raise UserError(f"{flag} {path}: a file does not name its images; give them by --dataset")
    _, images = open_dataset(moved.set_in(Config()), display.progress)
    display.end_progress()
    if images.notice:
        display.banner(images.notice)
    order, side = class_order(network, images.classes, flag), network.image_shape[0]
    resized = f", resized to {side}x{side}" if images.test_images.shape[1] != side else ""
    display.say(f"network of {path}, {len(images.test_labels):,} test images{resized}")
    logits = []
    for start in range(0, len(images.test_labels), _CHUNK):
        part = np.asarray(images.test_images[start : start + _CHUNK])
        logits.append(network.logits(_resized(part, side))[:, order])
        done = start + len(part)
        display.progress("evaluating", done, len(images.test_labels), plain=False)
    evaluation = evaluate_logits(np.concatenate(logits), np.asarray(images.test_labels))
    say_evaluation(evaluation, images, display)
    return evaluation
