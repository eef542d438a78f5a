"""The report's experiment in PyTorch, as a good PyTorch user would write it.

It has the images, split and protocol of `python -m cifar_jax.main`, with PyTorch's initial values,
shuffling and random numbers. It measures PyTorch's accuracy on these images, and its speed. Images
stay in memory as uint8 and are augmented a batch at a time. The network runs in channels_last,
which is the faster layout on a CPU.

Needs PyTorch, which this project does not install: pip install torch==2.13.0
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cifar_jax.core.inputs import PADDING, Inputs
from cifar_jax.data.dataset import load
from cifar_jax.data.splits import train_val_split

CHANNELS = (3, 32, 64, 128)

Forward = Callable[[nn.Module, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def network(norm: str, classes: int) -> nn.Sequential:
    """Return the report's CNN for images (N, 3, 32, 32)."""
    batch = norm == "batch"
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(CHANNELS):
        layers += [nn.Conv2d(before, after, 3, padding=1)]
        layers += [nn.BatchNorm2d(after)] if batch else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(2048, 256)]
    layers += [nn.BatchNorm1d(256)] if batch else []
    layers += [nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)]
    return nn.Sequential(*layers)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the report's optimiser, in PyTorch's fastest implementation."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)


def augment(images: torch.Tensor) -> torch.Tensor:
    """Flip and crop a batch, uint8 (N, 3, 32, 32), after zero padding by 4."""
    n, _, height, width = images.shape
    flip = torch.rand(n, device=images.device) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    # A view of all windows, (N, 3, 9, 9, 32, 32). One for each image is copied.
    windows = F.pad(images, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, n), device=images.device)
    return windows[torch.arange(n, device=images.device), :, top, left]


def normalise(images: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    """Normalise uint8 (N, 3, 32, 32) to the network's input, in a memory layout."""
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1)
        for values in (Inputs.mean, Inputs.std)
    )
    x = (images.float() - 255 * mean) * (1 / (255 * std))
    return x.contiguous(memory_format=layout)


def loss_and_correct(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean cross-entropy and number of correct predictions of a batch of uint8 images."""
    logits = model(normalise(images, layout))
    return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()


def bfloat16_loss_and_correct(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, layout: torch.memory_format
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `loss_and_correct` under autocast. Parameters and loss stay float32."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return loss_and_correct(model, images, labels, layout)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    forward: Forward = loss_and_correct,
    batch: int = 250,
) -> tuple[float, float]:
    """Return mean loss and accuracy in evaluation mode. PyTorch is fastest with batches of 250."""
    model.eval()
    total, right = torch.zeros(2, device=images.device)
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        loss, correct = forward(model, x, y)
        total += loss * len(y)
        right += correct
    return total.item() / len(labels), right.item() / len(labels)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    batch: int,
    forward: Forward = loss_and_correct,
) -> tuple[float, float]:
    """Train one epoch, partial batch included. Return mean loss and accuracy over its steps."""
    model.train()
    total, right = torch.zeros(2, device=images.device)
    for rows in torch.randperm(len(labels), device=images.device).split(batch):
        optimizer.zero_grad(set_to_none=True)
        loss, correct = forward(model, augment(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        # Summed on the device: reading a number at every step would wait for it.
        total += loss.detach() * len(rows)
        right += correct
    return total.item() / len(labels), right.item() / len(labels)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train by the protocol and evaluate once on the test images."""
    torch.manual_seed(args.seed)
    dataset = load(args.dataset, data_dir=args.data_dir)
    train, val = train_val_split(len(dataset.train_labels), 5000, 42)
    train = train[: args.train_examples]

    def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous()
        return x, torch.from_numpy(np.array(labels)).long()

    images, labels = tensors(dataset.train_images[train], dataset.train_labels[train])
    held_out = tensors(dataset.train_images[val], dataset.train_labels[val])
    model = network(args.norm, len(dataset.classes)).to(memory_format=torch.channels_last)
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.1)
    history = []
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        train_epoch(model, optimizer, images, labels, 128)
        loss, accuracy = evaluate(model, *held_out)
        seconds = time.perf_counter() - start
        schedule.step()
        history.append({"val_loss": loss, "val_accuracy": accuracy, "seconds": seconds})
        print(
            f"epoch {epoch}/{args.epochs}  val loss {loss:.4f} acc {100 * accuracy:.2f} %  "
            f"{len(labels) / seconds:,.0f} images/s",
            flush=True,
        )
    loss, accuracy = evaluate(model, *tensors(dataset.test_images, dataset.test_labels))
    print(f"test loss {loss:.4f}, test accuracy {100 * accuracy:.2f} % on {dataset.name}")
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "norm": args.norm,
        "seed": args.seed,
        "history": history,
        "test_loss": loss,
        "test_accuracy": accuracy,
        "train_seconds": sum(row["seconds"] for row in history),
        "versions": {"torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norm", choices=("none", "batch"), default="none")
    parser.add_argument("--dataset", default="auto", help="as of cifar_jax.main")
    parser.add_argument("--data-dir", help="as of cifar_jax.main")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--train-examples", type=int, help="the first N training images")
    parser.add_argument("--output", type=Path, help="write the result as JSON")
    args = parser.parse_args(argv)
    result = run(args)
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
