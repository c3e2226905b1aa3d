"""Atrous spatial pyramid pooling: the same features seen by convolutions of several rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import conv_bn, require_frames, separable_conv_bn


def scaled_rates(rates: Sequence[int], output_stride: int) -> list[int]:
    """``rates``, given for output stride 16, at ``output_stride`` (DeepLab v3, section 3.3: doubled at 8)."""
    return [rate * 16 // output_stride for rate in rates]


def _look(x: Tensor, branches: Iterable[nn.Module], image: nn.Module) -> Tensor:
    """Every branch's features and, last, those of the whole picture, concatenated: (N, sum of widths, h, w)."""
    features = [branch(x) for branch in branches]
    # One value a channel enlarged bilinearly is that value everywhere.
    features.append(image(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:]))
    return torch.cat(features, dim=1)


class ASPP(nn.Module):
    """1x1, dilated 3x3 and image-level features, concatenated and projected (DeepLab v3, figure 5).

    Args:
        separable: dilated convolutions are depthwise and pointwise (DeepLab v3+, section 3.1).
    """

    def __init__(self, cin: int, width: int, rates: Sequence[int], dropout: float, separable: bool = False) -> None:
        super().__init__()
        make = separable_conv_bn if separable else conv_bn
        self.branches = nn.ModuleList([conv_bn(cin, width, 1), *(make(cin, width, dilation=rate) for rate in rates)])
        self.image = conv_bn(cin, width, 1)
        self.project = nn.Sequential(conv_bn(width * (len(rates) + 2), width, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        require_frames(self, x, "ASPP's image-level features")
        y: Tensor = self.project(_look(x, self.branches, self.image))
        return y


class TorchvisionASPP(nn.Module):
    """``ASPP`` with torchvision's parameter names: ``convs`` holds all branches, the picture's last."""

    def __init__(self, cin: int, width: int, rates: Sequence[int], dropout: float) -> None:
        super().__init__()
        dilated = (conv_bn(cin, width, dilation=rate) for rate in rates)
        # torchvision's entry 0 of the last branch is the mean, which has no parameters.
        image = nn.Sequential(nn.Identity(), *conv_bn(cin, width, 1))
        self.convs = nn.ModuleList([conv_bn(cin, width, 1), *dilated, image])
        self.project = nn.Sequential(*conv_bn(width * (len(rates) + 2), width, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        require_frames(self, x, "ASPP's image-level features")
        *branches, image = self.convs
        y: Tensor = self.project(_look(x, branches, image))
        return y
