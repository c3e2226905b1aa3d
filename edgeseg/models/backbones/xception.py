"""Modified aligned Xception-65 (Chen et al., ECCV 2018, figure 4) at output stride 32, 16 or 8.

Deeper than Xception, every pooling replaced by a strided depthwise convolution, and batch normalisation and ReLU after each
depthwise convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import conv_bn, init_weights, round_channels, separable_conv_bn


class XceptionBlock(nn.Module):
    """Three separable convolutions, the last strided, each behind a ReLU, and a shortcut that projects where shapes change."""

    def __init__(self, cin: int, widths: Sequence[int], stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        inputs, strides = (cin, *widths[:-1]), (1, 1, stride)
        self.separable = nn.ModuleList(
            separable_conv_bn(a, b, step, dilation, relu=False) for a, b, step in zip(inputs, widths, strides, strict=True)
        )
        project = stride != 1 or cin != widths[-1]
        self.shortcut = conv_bn(cin, widths[-1], 1, stride, relu=False) if project else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output and what its last convolution read, which is not yet strided."""
        before = x
        for layer in self.separable[:-1]:
            before = layer(F.relu(before))
        before = F.relu(before)
        return self.separable[-1](before) + self.shortcut(x), before


class Xception(nn.Module):
    """Features at strides 4, 8, 16 and 32 (or held at ``output_stride``): a list of four (N, C_i, h_i, w_i).

    Those at stride 4 are what the second block's strided convolution reads, as DeepLab v3+ decodes from.

    Args:
        output_stride: 32, 16 or 8; later blocks trade their stride for dilation.
        width: multiplies the channels, which are rounded to eights.
        middle: blocks of the middle flow.
    """

    def __init__(self, output_stride: int = 32, width: float = 1.0, middle: int = 16) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise EdgesegError(f"output_stride {output_stride}", "8, 16 or 32")
        if middle < 1:
            raise EdgesegError(f"middle {middle}", "1 block or more")
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            round_channels(channels * width) for channels in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        self.channels = [c256, c256, c728, c2048]
        # Rate and stride of what trades them: the third entry block at output stride 8, the first exit block at 8 and 16.
        entry, between = (2, 1) if output_stride > 8 else (1, 2)
        leaving, last = (2, between) if output_stride == 32 else (1, between * 2)
        self.stem = nn.Sequential(conv_bn(3, c32, stride=2), conv_bn(c32, c64))
        self.entry = nn.ModuleList(
            [XceptionBlock(c64, [c128] * 3, 2), XceptionBlock(c128, [c256] * 3, 2), XceptionBlock(c256, [c728] * 3, entry)]
        )
        self.middle = nn.ModuleList(XceptionBlock(c728, [c728] * 3, dilation=between) for _ in range(middle))
        self.leave = XceptionBlock(c728, [c728, c1024, c1024], leaving, between)
        exits = ((c1024, c1536), (c1536, c1536), (c1536, c2048))
        self.exit = nn.Sequential(*(separable_conv_bn(cin, cout, dilation=last) for cin, cout in exits))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, _ = self.entry[0](self.stem(x))
        eighth, quarter = self.entry[1](x)
        x, _ = self.entry[2](eighth)
        for block in self.middle:
            x, _ = block(x)
        return [quarter, F.relu(eighth), F.relu(x), self.exit(F.relu(self.leave(x)[0]))]
