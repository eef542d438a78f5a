"""The models of benchmarks/models.py in PyTorch, with the same names."""

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 10


def SiluCNN() -> nn.Module:
    """The report's CNN with SiLU instead of ReLU."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(2048, 256), nn.SiLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(256, CLASSES))


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def ConvMixer(width: int = 64, depth: int = 4) -> nn.Module:
    """2x2 patches, 5x5 depthwise, 1x1 convolutions."""

    def norm(conv: nn.Module) -> nn.Module:
        return nn.Sequential(conv, nn.GELU(approximate="tanh"), nn.BatchNorm2d(width))

    layers = [norm(nn.Conv2d(3, width, 2, 2))]
    for _ in range(depth):
        layers.append(_Residual(norm(nn.Conv2d(width, width, 5, padding=2, groups=width))))
        layers.append(norm(nn.Conv2d(width, width, 1)))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
    return nn.Sequential(*layers, *head)


def _conv(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv(before, after, stride=stride), _conv(after, after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else _conv(before, after, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(F.relu(self.first(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)


def _resnet(blocks: tuple[int, ...], widths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = [_conv(3, widths[0]), nn.ReLU(inplace=True)]
    before = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            layers.append(_Block(before, width, 2 if stage and not block else 1))
            before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES)]
    return nn.Sequential(*layers, *head)


def resnet20() -> nn.Module:
    """He et al., section 4.2."""
    return _resnet((3, 3, 3), (16, 32, 64))


def resnet18() -> nn.Module:
    """He et al., table 1, with a 3x3 stem and no pooling for small images."""
    return _resnet((2, 2, 2, 2), (64, 128, 256, 512))
