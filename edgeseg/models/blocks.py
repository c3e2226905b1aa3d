"""Building blocks that several families share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError


def conv_bn(
    cin: int, cout: int, kernel: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, batch normalisation and, unless told not to, ReLU."""
    padding = dilation * (kernel - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def separable_conv_bn(cin: int, cout: int, stride: int = 1, dilation: int = 1, relu: bool = True) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution, each with batch normalisation and ReLU (DeepLab v3+, section 3.1).

    Args:
        relu: of the pointwise convolution; the depthwise one always has it.
    """
    return nn.Sequential(conv_bn(cin, cin, 3, stride, dilation, groups=cin), conv_bn(cin, cout, 1, relu=relu))


def round_channels(channels: float, unit: int = 8) -> int:
    """The nearest multiple of ``unit``, at least one, that is no less than nine tenths of ``channels`` (MobileNet's rule)."""
    rounded = max(unit, int(channels + unit / 2) // unit * unit)
    return rounded + unit if rounded < 0.9 * channels else rounded


def require_frames(network: nn.Module, x: Tensor, what: str) -> None:
    """Refuse to train on a batch of one, over which the ``what`` of (N, C, 1, 1) cannot be normalised.

    Raises:
        EdgesegError: ``network`` is training on a single frame.
    """
    if network.training and x.shape[0] == 1:
        raise EdgesegError("a batch of 1", f"2 or more, which {what} are normalised over", "raise --batch")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, figure 2); projects where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = conv_bn(cin, cout, stride=stride, dilation=dilation)
        self.conv2 = conv_bn(cout, cout, dilation=dilation, relu=False)
        self.shortcut = nn.Identity() if cin == cout and stride == 1 else conv_bn(cin, cout, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """``x`` resized bilinearly (half-pixel) to the height and width of ``reference``."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def match_size(x: Tensor, reference: Tensor) -> Tensor:
    """``resize_like`` where the sizes differ, or may: while a dynamic graph is traced they are symbols."""
    sizes = (*x.shape[-2:], *reference.shape[-2:])
    known = all(isinstance(size, int) for size in sizes)
    return x if known and sizes[:2] == sizes[2:] else resize_like(x, reference)


def init_weights(network: nn.Module) -> None:
    """He initialisation of convolutions (fan-out) and unit batch normalisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) weights of bilinear interpolation for a transposed convolution (Long et al., CVPR 2015, section 3.3)."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float32) - centre).abs() / factor
    return ramp[:, None] * ramp[None, :]
