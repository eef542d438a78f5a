"""Train the report's two networks in plain PyTorch and store what a JAX run is compared with.

Made with PyTorch 2.13.0 (CPU): pip install torch==2.13.0; python tests/golden/make_reference.py
"""

import argparse
import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from golden_problem import (
    BATCH_SEEDS,
    CLASSES,
    DECAY_AFTER,
    HIDDEN,
    NORM_GROUPS,
    STEPS,
    WIDTHS,
    Tensors,
    batch,
    initial_parameters,
    sketch,
)
from torch import nn
from torch.nn import functional

REFERENCE = Path(__file__).with_name("reference.npz")
NORMS = ("none", "batch", "layer", "instance", "group")
DTYPES = ("float64", "float32")
MIN_DISTANCE = 2e-5


def norm_layer(norm: str, width: int, positions: bool) -> nn.Module:
    """PyTorch's own layer of a norm."""
    if norm == "none" or (norm == "instance" and not positions):
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(width) if positions else nn.BatchNorm1d(width)
    if norm == "instance":
        return nn.InstanceNorm2d(width, affine=True)
    return nn.GroupNorm(1 if norm == "layer" else NORM_GROUPS, width)


class Network(nn.Module):
    """The report's network, without dropout; NCHW."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTHS[0], WIDTHS[1], 3, padding=1)
        self.conv3 = nn.Conv2d(WIDTHS[1], WIDTHS[2], 3, padding=1)
        self.dense1 = nn.Linear(4 * 4 * WIDTHS[2], HIDDEN)
        self.dense2 = nn.Linear(HIDDEN, CLASSES)
        self.norm1, self.norm2, self.norm3 = (norm_layer(norm, w, True) for w in WIDTHS)
        self.norm4 = norm_layer(norm, HIDDEN, False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits, and the inputs of the ReLUs."""
        a = self.norm1(self.conv1(x))
        x = functional.max_pool2d(functional.relu(a), 2)
        b = self.norm2(self.conv2(x))
        x = functional.max_pool2d(functional.relu(b), 2)
        c = self.norm3(self.conv3(x))
        x = functional.max_pool2d(functional.relu(c), 2)
        d = self.norm4(self.dense1(torch.flatten(x, 1)))
        return self.dense2(functional.relu(d)), [a, b, c, d]


def normalise(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> standardised (N, 3, H, W)."""
    x = torch.from_numpy(images).to(dtype).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.4914, 0.4822, 0.4465], dtype=dtype)
    std = torch.tensor([0.2470, 0.2435, 0.2616], dtype=dtype)
    return (x - mean[:, None, None]) / std[:, None, None]


def distance_to_jump(x: torch.Tensor) -> float:
    """Least distance from a tie, in units of x's root mean square.

    Of the four inputs of a pool only the largest matters, its sign and, where it is positive, its
    lead on the second.
    """
    if x.ndim == 4:
        largest = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2).topk(2).values
        first, lead = largest[..., 0], largest[..., 0] - largest[..., 1]
        distance = torch.where(first > 0, torch.minimum(first, lead), -first)
    else:
        distance = x.abs()
    return float(distance.min() / x.square().mean().sqrt())


def train(
    norm: str, dtype: torch.dtype, seeds: Callable[[Network], Iterator[int]]
) -> tuple[Network, torch.optim.SGD, list[float]]:
    """The whole run on the batches of `seeds(network)`, drawn one before each step."""
    network = Network(norm).to(dtype)
    start = {name: torch.from_numpy(value) for name, value in initial_parameters(norm).items()}
    network.load_state_dict(start, strict=False)
    assert dict(network.named_parameters()).keys() == start.keys()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, DECAY_AFTER, gamma=0.1)
    losses = []
    for seed in itertools.islice(seeds(network), STEPS):
        images, labels = batch(seed)
        optimiser.zero_grad()
        logits, _ = network(normalise(images, dtype))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return network, optimiser, losses


def far_from_jumps(network: Network) -> Iterator[int]:
    """Seeds of batches far from every jump of the network as it is when the next one is asked."""
    for seed in itertools.count():
        trial = copy.deepcopy(network)
        with torch.no_grad():
            _, inputs = trial(normalise(batch(seed)[0], torch.float64))
        if min(map(distance_to_jump, inputs)) > MIN_DISTANCE:
            yield seed


def search(norm: str) -> list[int]:
    """The batches to enter in `golden_problem.BATCH_SEEDS`."""
    found: list[int] = []

    def seeds(network: Network) -> Iterator[int]:
        for seed in far_from_jumps(network):
            found.append(seed)
            yield seed

    train(norm, torch.float64, seeds)
    return found


@functools.cache
def trajectory(norm: str, dtype_name: str) -> Tensors:
    """Everything that is compared: losses, final tensors, logits of the first batch at the end."""
    dtype = getattr(torch, dtype_name)
    network, optimiser, losses = train(norm, dtype, lambda _: iter(BATCH_SEEDS[norm]))
    network.eval()
    with torch.no_grad():
        logits, _ = network(normalise(batch(BATCH_SEEDS[norm][0])[0], dtype))
    results = {"loss": np.array(losses), "logits": logits.numpy()}
    for name, parameter in network.named_parameters():
        buffer = optimiser.state[parameter]["momentum_buffer"]
        results[f"parameter {name}"] = parameter.detach().numpy()
        results[f"momentum {name}"] = buffer.numpy()
    for name, value in network.named_buffers():
        if "running" in name:
            results[f"statistic {name}"] = value.numpy()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REFERENCE, help="default: %(default)s")
    parser.add_argument(
        "--search", action="store_true", help="print seeds for golden_problem.BATCH_SEEDS and stop"
    )
    arguments = parser.parse_args()
    if arguments.search:
        for norm in NORMS:
            print(f'    "{norm}": {tuple(search(norm))},', flush=True)
        return
    stored = {
        f"{norm} {dtype} {name}": sketch(value).astype(dtype)
        for norm in NORMS
        for dtype in DTYPES
        for name, value in trajectory(norm, dtype).items()
    }
    np.savez_compressed(arguments.output, torch=torch.__version__, **stored)


if __name__ == "__main__":
    main()
