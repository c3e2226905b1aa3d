"""DeepLab v2 (Chen et al., TPAMI 2017): atrous spatial pyramid pooling of scores, on ResNet-101 or VGG16.

The paper refines the scores by a dense CRF, which is the ``crf`` section of the manifest here.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import resize_like
from edgeseg.models.deeplab_v1 import AtrousVGG, fully_connected

TrainOutput = Tensor | list[Tensor]


class DeepLabV2(nn.Module):
    """Logits at stride 8.

    Args:
        num_classes: number of logit channels.
        backbone: vgg16, or a name in ``backbones.dilated``.
        output_stride: of what is no vgg16: 8 as published, or 16.
        rates: of the branches whose scores are summed: ASPP-L (section 4.1.2, figure 7). A branch is fc6 to fc8 on VGG16, and
            one 3x3 convolution on the others.
        fc_channels, dropout: of the branches on VGG16.
        scales: sizes at which the picture is looked at, the maximum of whose scores counts (section 4.1.1: 0.5, 0.75 and 1);
            in training the scores of each are further outputs.
        backbone_options: of the backbone's constructor.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        output_stride: int = 8,
        rates: Sequence[int] = (6, 12, 18, 24),
        fc_channels: int = 1024,
        dropout: float = 0.5,
        scales: Sequence[float] = (1.0,),
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not rates or min(rates) < 1:
            raise EdgesegError(f"rates {list(rates)}", "one or more positive numbers")
        if not scales or min(scales) <= 0:
            raise EdgesegError(f"scales {list(scales)}", "one or more positive numbers")
        self.scales = [Fraction(scale).limit_denominator(64) for scale in sorted(scales)]
        if backbone == "vgg16":
            if output_stride != 8:
                raise EdgesegError(f"output_stride {output_stride} of vgg16", "8")
            self.backbone: nn.Module = AtrousVGG(**(backbone_options or {}))
            cin = self.backbone.channels[4]  # type: ignore[index]
            branches = [fully_connected(cin, fc_channels, num_classes, rate, dropout) for rate in rates]
            self.classifier = nn.ModuleList(branches)
        else:
            features = make_backbone(backbone, output_stride, backbone_options)
            self.backbone = features
            self.classifier = nn.ModuleList(_score(features.channels[3], num_classes, rate) for rate in rates)

    def forward(self, x: Tensor) -> TrainOutput:
        scores = [self._scores(_scaled(x, scale)) for scale in self.scales]
        finest = scores[-1]
        fused = reduce(torch.maximum, [*(resize_like(score, finest) for score in scores[:-1]), finest])
        return [fused, *scores] if self.training and len(scores) > 1 else fused

    def _scores(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        high = features[-1] if isinstance(features, list) else features
        return reduce(torch.add, [branch(high) for branch in self.classifier])


def _score(cin: int, num_classes: int, rate: int) -> nn.Conv2d:
    layer = nn.Conv2d(cin, num_classes, 3, padding=rate, dilation=rate)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _scaled(x: Tensor, scale: Fraction) -> Tensor:
    if scale == 1:
        return x
    # In integers, as the sizes are symbols while a dynamic graph is traced.
    height, width = (side * scale.numerator // scale.denominator for side in x.shape[-2:])
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
