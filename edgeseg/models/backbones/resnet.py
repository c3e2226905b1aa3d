"""ResNet (He et al., CVPR 2016) at output stride 32, 16 or 8 by dilation; parameter names as in torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import init_weights

Rates = tuple[int, int]
"""Dilations of what reads a block's input and of what reads behind its stride: they differ where that stride is traded."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left)."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int, rates: Rates, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, rates[0], rates[0], bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, rates[1], rates[1], bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (figure 5, right), the stride on the 3x3 as in torchvision."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, rates: Rates, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, rates[0], rates[0], bias=False)
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
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Features at strides 4, 8, 16 and 32 (or held at ``output_stride``): a list of four (N, C_i, h_i, w_i).

    Args:
        name: a key of ``LAYOUTS``.
        output_stride: 32, 16 or 8; later stages trade their stride for dilation (DeepLab v3, section 3.1).
        width: channels of the stem and of the first stage's 3x3 convolutions; each later stage has twice as many.
        multi_grid: unit rates of the last stage's blocks, which multiply that stage's rate (DeepLab v3, section 3.2.1);
            a shorter list is repeated. None gives every block the stage's rate but the first, which keeps the rate of
            what it reads, as in torchvision.
        deep_stem: three 3x3 convolutions before the pooling instead of one 7x7 (as in PSPNet's code), the last twice as wide.
    """

    HEAD = ("fc.",)  # what a downloaded classifier has beyond this

    def __init__(
        self,
        name: str,
        output_stride: int = 32,
        width: int = 64,
        multi_grid: Sequence[int] | None = None,
        deep_stem: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise EdgesegError(f"output_stride {output_stride}", "8, 16 or 32")
        if multi_grid is not None and (not multi_grid or min(multi_grid) < 1):
            raise EdgesegError(f"multi_grid {list(multi_grid)}", "one or more positive rates")
        block, depths = LAYOUTS[name]
        self.stem = 3 if deep_stem else 1
        stem = _add_stem(self, width, deep_stem)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = [(width << index) * block.expansion for index in range(4)]
        strides, rates = _plan(output_stride, depths)
        if multi_grid is not None:
            units = [rates[3][-1][1] * multi_grid[index % len(multi_grid)] for index in range(depths[3])]
            rates[3] = [(unit, unit) for unit in units]
        inputs = (stem, *self.channels)
        for index in range(4):
            stage = _stage(block, inputs[index], width << index, strides[index], rates[index])
            self.add_module(f"layer{index + 1}", stage)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        for index in range(1, self.stem + 1):
            x = F.relu(getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x)))
        x = self.maxpool(x)
        features: list[Tensor] = []
        for index in range(4):
            x = getattr(self, f"layer{index + 1}")(x)
            features.append(x)
        return features


def _add_stem(network: ResNet, width: int, deep: bool) -> int:
    """Give ``network`` its first convolutions (conv1, bn1, ...); returns the channels of the last."""
    plan = [(3, width, 3, 2), (width, width, 3, 1), (width, 2 * width, 3, 1)] if deep else [(3, width, 7, 2)]
    for index, (cin, cout, kernel, stride) in enumerate(plan, 1):
        network.add_module(f"conv{index}", nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False))
        network.add_module(f"bn{index}", nn.BatchNorm2d(cout))
    return plan[-1][1]


def _plan(output_stride: int, depths: Sequence[int]) -> tuple[list[int], list[list[Rates]]]:
    """Strides of the four stages and the dilations of each of their blocks."""
    strides, rates, stride, rate = [1], [[(1, 1)] * depths[0]], 4, 1
    for depth in depths[1:]:
        if stride < output_stride:
            strides.append(2)
            stride *= 2
            rates.append([(1, 1)] * depth)
        else:
            strides.append(1)
            rates.append([(rate, rate * 2), *[(rate * 2, rate * 2)] * (depth - 1)])
            rate *= 2
    return strides, rates


def _stage(block: type[BasicBlock] | type[Bottleneck], cin: int, width: int, stride: int, rates: Sequence[Rates]) -> nn.Sequential:
    cout = width * block.expansion
    project = stride != 1 or cin != cout
    downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if project else None
    first = block(cin, width, stride, rates[0], downsample)
    return nn.Sequential(first, *(block(cout, width, 1, pair, None) for pair in rates[1:]))
