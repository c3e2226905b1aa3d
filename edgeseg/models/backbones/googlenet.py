"""GoogLeNet (Szegedy et al., CVPR 2015), as torchvision has it: batch-normalised, and 3x3 where the paper's last branch has 5x5.

Parameter names are torchvision's; the training-only classifiers ``aux1`` and ``aux2`` are left out. Its downloadable weights
were trained on pixels normalised to -1..1: train with mean and std of 0.5 when starting from them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError

# Output channels of an inception module: 1x1, 3x3 reduce, 3x3, "5x5" reduce, "5x5", pool projection (table 1).
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class _ConvBn(nn.Module):
    """Convolution, batch normalisation (eps 0.001) and ReLU."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Inception(nn.Module):
    """Four branches side by side (figure 2b)."""

    def __init__(self, cin: int, outputs: list[int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = outputs
        self.branch1 = _ConvBn(cin, one)
        self.branch2 = nn.Sequential(_ConvBn(cin, reduce3), _ConvBn(reduce3, three, 3))
        # torchvision's known departure, which its weights need: 3x3.
        self.branch3 = nn.Sequential(_ConvBn(cin, reduce5), _ConvBn(reduce5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), _ConvBn(cin, pool))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], 1)


def _width(outputs: tuple[int, ...], width: float) -> int:
    """Output channels of a module."""
    return sum(round(outputs[index] * width) for index in (0, 2, 4, 5))


class GoogLeNet(nn.Module):
    """The network without its pooled classifier.

    Args:
        width: factor of all channels; 1 is the paper's.

    Attributes:
        pool_channels: channels of ``pools``.
        centres: pixel of the first cell's centre, of ``pools``.
    """

    HEAD: tuple[str, ...] = ("aux1.", "aux2.", "fc.")
    centres = (4.0, 4.0, 12.0)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not 1 / 16 <= width <= 8:
            raise EdgesegError(f"width {width}", "a factor of the channels in 1/16..8")
        first, third = round(64 * width), round(192 * width)
        self.conv1 = _ConvBn(3, first, 7, 2)
        self.conv2 = _ConvBn(first, first)
        self.conv3 = _ConvBn(first, third, 3)
        cin = third
        for name, outputs in MODULES.items():
            self.add_module(f"inception{name}", _Inception(cin, [round(channels * width) for channels in outputs]))
            cin = _width(outputs, width)
        self._last = 2
        self.pool_channels = [third, _width(MODULES["3b"], width), cin]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def pools(self, x: Tensor) -> list[Tensor]:
        """Of (N, 3, H, W): the pools at strides 8 and 16, and the last module's features at stride 32, which have no pool."""
        # torchvision pads no pool; inside the picture that is the same function, on grids that reach the left border later.
        x = F.max_pool2d(self.conv1(x), 3, 2, 1)
        eighth = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        if self._last == 0:
            return [eighth]
        sixteenth = F.max_pool2d(self._stage(3, eighth), 3, 2, 1)
        if self._last == 1:
            return [eighth, sixteenth]
        x = F.max_pool2d(self._stage(4, sixteenth), 2, 2, ceil_mode=True)
        return [eighth, sixteenth, self._stage(5, x)]

    def cut(self, level: int) -> None:
        """Drop what comes after ``pools``' element ``level``, 0..2."""
        self._last = level
        for name in [name for name in MODULES if int(name[0]) > (2, 3, 5)[level]]:
            delattr(self, f"inception{name}")
            self.HEAD = (*self.HEAD, f"inception{name}.")

    def forward(self, x: Tensor) -> Tensor:
        """The last module's features of (N, 3, H, W), pooled as in torchvision."""
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self._stage(3, x), 3, 2, ceil_mode=True)
        return self._stage(5, F.max_pool2d(self._stage(4, x), 2, 2, ceil_mode=True))

    def _stage(self, number: int, x: Tensor) -> Tensor:
        for name in MODULES:
            if name.startswith(str(number)):
                x = self.get_submodule(f"inception{name}")(x)
        return x
