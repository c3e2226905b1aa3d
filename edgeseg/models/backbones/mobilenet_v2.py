"""MobileNetV2 (Sandler et al., CVPR 2018) at output stride 32, 16 or 8; parameter names as in torchvision."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import init_weights, round_channels

# Table 2: expansion t, channels c, repeats n, stride s.
_TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_TAPS = (24, 32, 96, 320)  # channels of the last layer at strides 4, 8, 16 and 32


def _conv_bn_relu6(cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project linearly (figure 3)."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        hidden = cin * expansion
        self.shortcut = stride == 1 and cin == cout
        expand = [_conv_bn_relu6(cin, hidden, 1)] if expansion != 1 else []
        depthwise = _conv_bn_relu6(hidden, hidden, 3, stride, dilation, groups=hidden)
        project = [nn.Conv2d(hidden, cout, 1, bias=False), nn.BatchNorm2d(cout)]
        self.conv = nn.Sequential(*expand, depthwise, *project)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Features at strides 4, 8, 16 and 32 (or held at ``output_stride``): a list of four (N, C_i, h_i, w_i).

    Args:
        output_stride: 32, 16 or 8.
        width: multiplies the channels, which are rounded to eights (section 4 and torchvision's ``width_mult``).
    """

    HEAD = ("classifier.", "features.18.")  # what a downloaded classifier has beyond this

    def __init__(self, output_stride: int = 32, width: float = 1.0) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise EdgesegError(f"output_stride {output_stride}", "8, 16 or 32")
        self.channels = [round_channels(channels * width) for channels in _TAPS]
        cin, stride, dilation = round_channels(32 * width), 2, 1
        layers: list[nn.Module] = [_conv_bn_relu6(3, cin, 3, 2)]
        self._taps: list[int] = []
        for expansion, channels, repeats, step in _TABLE:
            before = dilation
            if step == 2 and stride >= output_stride:
                step, dilation = 1, dilation * 2
            stride *= step
            for index in range(repeats):
                # The first block of a stage keeps the dilation of what it reads, as in DeepLab.
                rate = before if index == 0 else dilation
                cout = round_channels(channels * width)
                layers.append(InvertedResidual(cin, cout, step if index == 0 else 1, expansion, rate))
                cin = cout
            if channels in _TAPS:
                self._taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._taps:
                found.append(x)
        return found
