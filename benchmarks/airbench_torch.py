"""The recipe of `examples/airbench94.py` in PyTorch: the twin that the speedrun is compared with.

It is fast in the usual ways: images on the device, channels_last, half precision, a compiled
network, and fused SGD. The golden values of `tests/golden` come from the same functions.

Needs PyTorch, which this project does not install: pip install torch
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

BATCH = 2000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def whitening(x: torch.Tensor, eps: float = 5e-4) -> torch.Tensor:
    """Return filters (8 * C, C, 2, 2) that whiten the 2x2 patches of x, float (N, C, H, W)."""
    patches = F.unfold(x, 2).transpose(1, 2).reshape(-1, 4 * x.shape[1])
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / torch.sqrt(values + eps)).T
    return torch.cat([filters, -filters]).view(-1, x.shape[1], 2, 2)


def start_conv(weight: torch.Tensor) -> None:
    """Set the first filters of a 3x3 convolution to the identity, the others as PyTorch does."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    nn.init.dirac_(weight[: weight.shape[1]])


class Group(nn.Module):
    """Convolution, pooling, norm, GELU; convolution, norm, GELU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(after, 1e-12, 0.4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Network(nn.Module):
    """The network; NCHW. Convolutions and head have `dtype`, norms are float32 or wider."""

    def __init__(
        self, widths: tuple[int, ...] = (64, 256, 256), dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 2)
        self.first.weight.requires_grad = False
        sizes = zip((24, *widths[:-1]), widths, strict=True)
        self.groups = nn.Sequential(*(Group(before, after) for before, after in sizes))
        self.head = nn.Linear(widths[-1], 10, bias=False)
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.to(torch.promote_types(dtype, torch.float32))
                module.weight.requires_grad = False

    def start(self, x: torch.Tensor) -> None:
        """Give the network new initial values; the first layer's are from images x."""
        for module in self.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        with torch.no_grad():
            for group in self.groups:
                start_conv(group.conv1.weight)
                start_conv(group.conv2.weight)
            self.head.weight /= self.head.weight.std()
            self.first.weight.copy_(whitening(x.to(torch.promote_types(x.dtype, torch.float32))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.groups(F.gelu(self.first(x))).amax((2, 3))
        return self.head(x) / x.shape[1]


def averaged(network: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the logits, (N, 10), averaged over two shifts, no shift, and their mirror images."""
    h, w = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    shifted = [x, padded[:, :, :h, :w], padded[:, :, 2:, 2:]]
    logits = [network(view).clone() + network(view.flip(3)).clone() for view in shifted]
    return logits[0] / 4 + (logits[1] + logits[2]) / 8


def orthogonal(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Replace the singular values of a matrix, (rows, columns), by values around 1."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T, dtype).T
    x = matrix.to(dtype)
    x = x / (x.norm() + 1e-7)
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x


class Optimizer:
    """Muon for the convolutions, Nesterov's SGD for biases and head. Rates fall to zero.

    Args:
        network: what it trains.
        steps: of the whole training.
        share: of the rates of biases and head, for narrow networks.
        dtype: of Muon's products.
        rate: Muon's learning rate.
    """

    def __init__(
        self,
        network: Network,
        steps: int,
        share: float = 1.0,
        dtype: torch.dtype = torch.bfloat16,
        rate: float = 0.24,
    ) -> None:
        named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        self.filters = [p for _, p in named if p.ndim == 4]
        self.buffers = [torch.zeros_like(p) for p in self.filters]
        norms = [p for n, p in named if "norm" in n]
        groups = [([network.first.bias], 0.053), (norms, 0.053), ([network.head.weight], 0.67)]
        self.rates = [rate * share for _, rate in groups]
        self.sgd = torch.optim.SGD(
            [
                {"params": parameters, "lr": rate * share, "weight_decay": 0.004 / (rate * share)}
                for parameters, rate in groups
            ],
            momentum=0.85,
            nesterov=True,
            fused=named[0][1].is_cuda,
        )
        self.steps, self.done, self.rate = steps, 0, rate
        self.orthogonal: Callable[..., torch.Tensor] = orthogonal
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Update the network by its gradients, which are of a sum over the batch."""
        share = 1 - self.done / self.steps
        first = max(1 - self.done / (3 / 8 * self.steps), 0)
        for group, rate, part in zip(
            self.sgd.param_groups, self.rates, (first, share, share), strict=True
        ):
            group["lr"] = rate * part
        self.sgd.step()
        for weight, buffer in zip(self.filters, self.buffers, strict=True):
            buffer.mul_(0.6).add_(weight.grad)
            moved = weight.grad.add(buffer, alpha=0.6).flatten(1)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            update = self.orthogonal(moved, self.dtype).view_as(weight)
            weight.add_(update, alpha=-self.rate * share)
        self.done += 1


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the sum of the cross-entropy with smoothed labels."""
    return F.cross_entropy(logits, labels, label_smoothing=0.2, reduction="sum")


class Twin:
    """Images on the device and a network that is compiled once; float16 on a GPU, else float32.

    Args:
        data: a dataset with `train_images`, uint8 (N, H, W, C), `train_labels` and those of test.
        device: "cuda" or "cpu".
        widths: of the network.
        mode: of `torch.compile`; None for PyTorch without a compiler.
        epochs: of a run.
    """

    def __init__(
        self,
        data: Any,
        device: str,
        widths: tuple[int, ...] = (64, 256, 256),
        mode: str | None = None,
        epochs: int = 8,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        torch.backends.cudnn.benchmark = True
        self.train = self._put(data.train_images, data.train_labels)
        self.test = self._put(data.test_images, data.test_labels)
        self.network = Network(widths, self.dtype).to(
            self.device, memory_format=torch.channels_last
        )
        self.orthogonal: Callable[..., torch.Tensor] = orthogonal
        if mode is not None:
            self.network.compile(mode=mode)
            self.orthogonal = torch.compile(orthogonal)
        self.share, self.epochs = widths[-1] / 256, epochs

    def _put(self, images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise images on the device: float (N, C, H, W), channels last."""
        x = torch.from_numpy(np.array(images)).to(self.device)
        x = x.permute(0, 3, 1, 2).to(self.dtype) / 255
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = ((x - mean) / std).to(self.dtype).contiguous(memory_format=torch.channels_last)
        return x, torch.from_numpy(np.array(labels)).long().to(self.device)

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _epochs(self) -> Iterator[torch.Tensor]:
        """Yield the augmented images of each epoch: flips alternate, shifts are new."""
        images = self.train[0]
        n, _, h, w = images.shape
        coin = torch.rand(n, device=self.device) < 0.5
        images = torch.where(coin.view(-1, 1, 1, 1), images.flip(3), images)
        padded = F.pad(images, (2, 2, 2, 2), "reflect")
        for epoch in range(self.epochs):
            corner = torch.randint(0, 5, (2, n), device=self.device)
            moved = torch.empty_like(images)
            for top in range(5):
                for left in range(5):
                    mask = (corner[0] == top) & (corner[1] == left)
                    moved[mask] = padded[mask, :, top : top + h, left : left + w]
            yield moved.flip(3) if epoch % 2 else moved

    def run(self, seed: int) -> tuple[float, float]:
        """Train and test once. Return the seconds and the test accuracy."""
        torch.manual_seed(seed)
        labels, network = self.train[1], self.network
        begun = self._clock()
        network.start(self.train[0][:5000])
        network.train()
        n = len(labels)
        batches = -(-n // BATCH)
        optimizer = Optimizer(network, self.epochs * batches, self.share)
        optimizer.orthogonal = self.orthogonal
        for images in self._epochs():
            for rows in torch.randperm(n, device=self.device).split(BATCH):
                loss_of(network(images[rows]), labels[rows]).mul(BATCH / len(rows)).backward()
                optimizer.step()
                network.zero_grad(set_to_none=True)
        network.eval()
        with torch.no_grad():
            logits = torch.cat([averaged(network, x) for x in self.test[0].split(BATCH)])
        accuracy = (logits.argmax(1) == self.test[1]).float().mean().item()
        return self._clock() - begun, accuracy
