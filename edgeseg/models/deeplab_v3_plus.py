"""DeepLab v3+ (Chen et al., ECCV 2018): atrous spatial pyramid pooling and a decoder on stride-4 features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.models.aspp import ASPP, scaled_rates
from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import conv_bn, init_weights, resize_like, separable_conv_bn


class DeepLabV3Plus(nn.Module):
    """Logits at stride 4.

    Args:
        num_classes: number of logit channels.
        backbone: a name in ``backbones.dilated``: a ResNet, xception65 or mobilenet_v2.
        output_stride: 16 or 8; the rates of ASPP are (6, 12, 18) or twice that (section 3.1 of v3). The weights are the
            same, so a network trained at 16 runs at 8.
        width, low_width: channels of ASPP and decoder (256), and of the reduced stride-4 features (48, section 4.1).
        dropout: behind ASPP.
        separable: depthwise and pointwise convolutions in ASPP and decoder (section 3.1), as the paper has with Xception.
        backbone_options: of the backbone's constructor.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        output_stride: int = 16,
        width: int = 256,
        low_width: int = 48,
        dropout: float = 0.1,
        separable: bool = False,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        features = make_backbone(backbone, output_stride, backbone_options)
        make = separable_conv_bn if separable else conv_bn
        self.head = nn.Sequential(make(width + low_width, width), make(width, width))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        rates = scaled_rates((6, 12, 18), output_stride)
        self.aspp = ASPP(features.channels[3], width, rates, dropout, separable)
        self.low = conv_bn(features.channels[0], low_width, 1)
        init_weights(self)
        self.backbone = features

    def forward(self, x: Tensor) -> Tensor:
        low, _, _, high = self.backbone(x)
        low = self.low(low)
        high = resize_like(self.aspp(high), low)
        logits: Tensor = self.classifier(self.head(torch.cat([high, low], dim=1)))
        return logits
