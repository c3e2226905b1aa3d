"""FCN-32s, 16s and 8s on VGG16 (Long, Shelhamer, Darrell, CVPR 2015, figure 3).

The fully connected layers are convolutions; scores are upsampled by transposed convolutions that start as bilinear
interpolation. Padding is centred rather than the paper's 100 pixels with crops: same function inside the picture, and
every size works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.vgg import CHANNELS, VGG16
from edgeseg.models.blocks import bilinear_kernel


class FCN(nn.Module):
    """Logits at the input's resolution.

    Args:
        num_classes: number of logit channels.
        stride: 32, 16 or 8: the finest prediction that is fused.
        fc_channels: width of fc6 and fc7, 4096 as in VGG16.
        dropout: after fc6 and fc7.
    """

    def __init__(self, num_classes: int, stride: int = 8, fc_channels: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise EdgesegError(f"stride {stride}", "8, 16 or 32")
        self.stride = stride
        self.backbone = VGG16()
        self.fc6 = nn.Conv2d(CHANNELS[4], fc_channels, 7, padding=3)
        self.fc7 = nn.Conv2d(fc_channels, fc_channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.score = nn.Conv2d(fc_channels, num_classes, 1)
        # Finest last: each fuses the scores of one more pool (figure 3).
        pools = {32: [], 16: [3], 8: [3, 2]}[stride]
        self.pools: list[int] = pools
        self.skips = nn.ModuleList(nn.Conv2d(CHANNELS[pool], num_classes, 1) for pool in pools)
        self.ups = nn.ModuleList(_bilinear_up(num_classes, 2) for _ in pools)
        self.up = _bilinear_up(num_classes, stride)
        for layer in (self.score, *self.skips):
            # Section 4.1: the class scoring layers start at zero.
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.kaiming_normal_(self.fc6.weight)
        nn.init.kaiming_normal_(self.fc7.weight)

    def forward(self, x: Tensor) -> Tensor:
        image, features = x, []
        for index in range(5):
            x = nn.functional.max_pool2d(self.backbone.stage(index)(x), 2, 2, ceil_mode=True)
            features.append(x)
        x = self.dropout(torch.relu(self.fc6(x)))
        x = self.dropout(torch.relu(self.fc7(x)))
        x = self.score(x)
        for pool, skip, up in zip(self.pools, self.skips, self.ups, strict=True):
            x = _match(up(x), features[pool]) + skip(features[pool])
        logits: Tensor = _match(self.up(x), image)
        return logits


def _bilinear_up(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Learnable upsampling that starts as bilinear interpolation of each channel by itself."""
    kernel = 2 * factor - factor % 2
    layer = nn.ConvTranspose2d(channels, channels, kernel, factor, padding=factor // 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(channels), range(channels)] = bilinear_kernel(kernel)
    return layer


def _match(x: Tensor, reference: Tensor) -> Tensor:
    """Crop what ceil-mode pooling made too large; the grids share their top left corner."""
    height, width = reference.shape[-2:]
    return x[..., :height, :width]


def fcn32s(num_classes: int, **options: object) -> FCN:
    """FCN-32s."""
    return FCN(num_classes, stride=32, **options)  # type: ignore[arg-type]


def fcn16s(num_classes: int, **options: object) -> FCN:
    """FCN-16s."""
    return FCN(num_classes, stride=16, **options)  # type: ignore[arg-type]


def fcn8s(num_classes: int, **options: object) -> FCN:
    """FCN-8s."""
    return FCN(num_classes, stride=8, **options)  # type: ignore[arg-type]
