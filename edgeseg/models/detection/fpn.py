"""Feature pyramid over a ResNet (Lin et al., CVPR 2017, figure 3); parameter names as in torchvision's detectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.resnet import LAYOUTS, ResNet

STRIDES = (4, 8, 16, 32, 64)


class FeaturePyramid(nn.Module):
    """Maps of equal width from stages of different widths: lateral 1x1, top-down nearest upsampling, 3x3; P6 is P5 subsampled."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(cin, width, 1)) for cin in channels)
        self.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, padding=1)) for _ in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        last = self.inner_blocks[-1](stages[-1])
        levels = [self.layer_blocks[-1](last)]
        for index in range(len(stages) - 2, -1, -1):
            lateral = self.inner_blocks[index](stages[index])
            last = lateral + F.interpolate(last, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, self.layer_blocks[index](last))
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]


class FrozenBatchNorm(nn.Module):
    """Batch normalisation whose statistics, scale and shift do not change: for batches too small to have their own."""

    def __init__(self, old: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = old.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(old, name)
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)  # type: ignore[arg-type]


def freeze_batch_norm(network: nn.Module) -> None:
    """Replace every batch normalisation of ``network`` by a frozen one of the same state-dict names."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norm(child)


class ResNetPyramid(nn.Module):
    """P2 to P6: a list of five (N, width, h, w) at ``STRIDES``.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        width: channels of each level.
        body_width: channels of the ResNet's first stage; 64 as published.
        frozen_bn: batch normalisation of the ResNet keeps its statistics: for fine-tuning weights that were trained elsewhere.
    """

    def __init__(self, name: str, width: int = 256, frozen_bn: bool = False, body_width: int = 64) -> None:
        super().__init__()
        if name not in LAYOUTS:
            raise EdgesegError(f"backbone {name!r}", f"one of {', '.join(LAYOUTS)}")
        self.body = ResNet(name, width=body_width)
        self.fpn = FeaturePyramid(self.body.channels, width)
        if frozen_bn:
            freeze_batch_norm(self.body)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.fpn(self.body(x))
        return levels


def single(x: Tensor) -> None:
    """Refuse a batch where the network's results are those of one picture.

    Raises:
        EdgesegError: more or fewer pictures than one.
    """
    if x.shape[0] != 1:
        raise EdgesegError(
            f"a batch of {x.shape[0]} pictures", "1: detections are those of one picture", "use batch 1 and a fixed size"
        )
