"""Residual networks in plain PyTorch: what ours are compared with.

Made with PyTorch 2.13.0 (CPU): pip install torch==2.13.0, then this script in tests/golden.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from golden_problem import CLASSES, Tensors
from make_reference import norm_layer, normalise
from resnet_problem import COUNTED_NORMS, NORMS, STEPS, batch, initial_values, small
from torch import nn
from torch.nn import functional

REFERENCE = Path(__file__).with_name("resnet_reference.npz")
DEPTHS = {20: 3, 32: 5, 56: 9}


class Block(nn.Module):
    """He et al. 2016, figure 2, with the norm behind each convolution."""

    def __init__(self, norm: str, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.bn1 = norm_layer(norm, outputs, True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        self.bn2 = norm_layer(norm, outputs, True)
        self.stride, self.shortcut, self.widened = stride, shortcut, outputs - inputs
        if shortcut == "project" and (stride, inputs) != (1, outputs):
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=bias)
            self.downsample = nn.Sequential(project, norm_layer(norm, outputs, True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.shortcut == "none":
            return functional.relu(y)
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.stride > 1 or self.widened:
            # As Torch's nn.Concat of identity and zeros in fb.resnet.torch: zeros behind.
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.widened)
            )
        return functional.relu(y + x)


class ResNet(nn.Module):
    """With a 3x3 stem and torchvision's names; NCHW."""

    def __init__(
        self, norm: str, blocks: tuple[int, ...], widths: tuple[int, ...], shortcut: str
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=norm == "none")
        self.bn1 = norm_layer(norm, widths[0], True)
        inputs = widths[0]
        self.stages = []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = []
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                layers.append(Block(norm, inputs, width, stride, shortcut))
                inputs = width
            self.stages.append(f"layer{stage}")
            self.add_module(self.stages[-1], nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean(dim=(2, 3)))


def resnet(depth: int, norm: str, shortcut: str = "pad") -> ResNet:
    """Depth 20, 32 or 56."""
    return ResNet(norm, (DEPTHS[depth],) * 3, (16, 32, 64), shortcut)


def resnet18(norm: str) -> ResNet:
    return ResNet(norm, (2, 2, 2, 2), (64, 128, 256, 512), "project")


def start(network: ResNet) -> None:
    """Give a network the problem's initial values."""
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    values = {name: torch.from_numpy(value) for name, value in initial_values(shapes).items()}
    network.load_state_dict(values, strict=False)


def numpy(tensors: dict[str, torch.Tensor], kind: str) -> Tensors:
    return {f"{kind} {name}": value.detach().numpy().copy() for name, value in tensors.items()}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def trajectory(norm: str) -> Tensors:
    """A few steps of ResNet-20: losses, first gradients, last tensors, logits in evaluation."""
    network = resnet(20, norm).double()
    start(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    results, losses = {}, []
    for seed in range(STEPS):
        images, labels = batch(seed)
        optimiser.zero_grad()
        logits = network(normalise(images, torch.float64))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()
        if seed == 0:
            results = numpy({k: p.grad for k, p in network.named_parameters()}, "gradient")
        optimiser.step()
        losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        logits = network(normalise(batch(0)[0], torch.float64))
    statistics = {name: value for name, value in network.named_buffers() if "running" in name}
    return {
        **results,
        **numpy({"logits": logits}, "evaluation"),
        **numpy(dict(network.named_parameters()), "parameter"),
        **numpy(statistics, "statistic"),
        "loss": np.array(losses),
    }


def forward18(norm: str) -> Tensors:
    """Logits of ResNet-18 in training mode and then in evaluation mode."""
    network = resnet18(norm).double()
    start(network)
    x = normalise(batch(0)[0], torch.float64)
    with torch.no_grad():
        training = network(x)
        network.eval()
        evaluation = network(x)
    return numpy({"logits": training}, "training") | numpy({"logits": evaluation}, "evaluation")


def counts() -> dict[str, int]:
    """Trainable parameters by model and norm."""
    found = {}
    for norm in COUNTED_NORMS:
        found |= {f"resnet{depth} {norm}": count(resnet(depth, norm)) for depth in DEPTHS}
        found |= {f"plain{depth} {norm}": count(resnet(depth, norm, "none")) for depth in DEPTHS}
        found[f"resnet18 {norm}"] = count(resnet18(norm))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REFERENCE, help="default: %(default)s")
    arguments = parser.parse_args()
    stored = {f"count {name}": np.array(value) for name, value in counts().items()}
    for norm in NORMS:
        for name, value in small(trajectory(norm)).items():
            stored[f"resnet20 {norm} {name}"] = value
    stored |= {f"resnet18 batch {name}": value for name, value in small(forward18("batch")).items()}
    np.savez_compressed(arguments.output, torch=torch.__version__, **stored)


if __name__ == "__main__":
    main()
