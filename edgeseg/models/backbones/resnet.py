"""ResNet (He et al., CVPR 2016) at output stride 32, 16 or 8 by dilation; parameter names as in torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import init_weights


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left)."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (figure 5, right), the stride on the 3x3 as in torchvision."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + shortcut)


LAYOUTS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """Features at strides 4, 8, 16 and 32 (or held at ``output_stride``): a list of four (N, C_i, h_i, w_i).

    Args:
        name: a key of ``LAYOUTS``.
        output_stride: 32, 16 or 8; later stages trade their stride for dilation (DeepLab v3, section 3.1).
    """

    HEAD = ("fc.",)  # what a downloaded classifier has beyond this

    def __init__(self, name: str, output_stride: int = 32) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise EdgesegError(f"output_stride {output_stride}", "8, 16 or 32")
        block, depths = LAYOUTS[name]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = [width * block.expansion for width in (64, 128, 256, 512)]
        strides, dilations = _plan(output_stride)
        inputs = (64, *self.channels)
        for index in range(4):
            stage = _stage(block, inputs[index], 64 << index, depths[index], strides[index], dilations[index])
            self.add_module(f"layer{index + 1}", stage)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        features: list[Tensor] = []
        for index in range(4):
            x = getattr(self, f"layer{index + 1}")(x)
            features.append(x)
        return features


def _plan(output_stride: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Strides of the four stages and, for each, the dilation of its first block and of the others."""
    strides, dilations, stride, rate = [1], [(1, 1)], 4, 1
    for _ in range(3):
        if stride < output_stride:
            strides.append(2)
            stride *= 2
            dilations.append((1, 1))
        else:
            strides.append(1)
            dilations.append((rate, rate * 2))
            rate *= 2
    return strides, dilations


def _stage(
    block: type[BasicBlock] | type[Bottleneck], cin: int, width: int, depth: int, stride: int, dilation: Sequence[int]
) -> nn.Sequential:
    cout = width * block.expansion
    project = stride != 1 or cin != cout
    downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if project else None
    first = block(cin, width, stride, dilation[0], downsample)
    return nn.Sequential(first, *(block(cout, width, 1, dilation[1], None) for _ in range(depth - 1)))
