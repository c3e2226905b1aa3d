"""DeepLab v3+ (Chen et al., ECCV 2018): atrous spatial pyramid pooling and a decoder on stride-4 features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.mobilenet_v2 import MobileNetV2
from edgeseg.models.backbones.resnet import LAYOUTS, ResNet
from edgeseg.models.blocks import conv_bn, init_weights, resize_like


class ASPP(nn.Module):
    """1x1, three dilated 3x3 and image-level features, concatenated and projected (DeepLab v3, figure 5)."""

    def __init__(self, cin: int, width: int, rates: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn(cin, width, 1), *(conv_bn(cin, width, dilation=rate) for rate in rates)])
        self.image = conv_bn(cin, width, 1)
        self.project = nn.Sequential(conv_bn(width * 5, width, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            raise EdgesegError("a batch of 1", "2 or more, which ASPP's image-level features are normalised over", "raise --batch")
        features = [branch(x) for branch in self.branches]
        pooled = self.image(x.mean((2, 3), keepdim=True))
        features.append(pooled.expand(-1, -1, *x.shape[-2:]))
        y: Tensor = self.project(torch.cat(features, dim=1))
        return y


class DeepLabV3Plus(nn.Module):
    """Logits at stride 4.

    Args:
        num_classes: number of logit channels.
        backbone: resnet18, resnet34, resnet50, resnet101 or mobilenet_v2.
        output_stride: 16 or 8; the rates of ASPP are (6, 12, 18) or twice that (section 3.1 of v3). The weights are the
            same, so a network trained at 16 runs at 8.
        width, low_width: channels of ASPP and decoder (256), and of the reduced stride-4 features (48, section 4.1).
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        output_stride: int = 16,
        width: int = 256,
        low_width: int = 48,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise EdgesegError(f"output_stride {output_stride}", "8 or 16")
        if backbone not in (*LAYOUTS, "mobilenet_v2"):
            raise EdgesegError(f"backbone {backbone!r}", f"one of {', '.join(LAYOUTS)}, mobilenet_v2")
        self.head = nn.Sequential(conv_bn(width + low_width, width), conv_bn(width, width))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        make = (lambda: MobileNetV2(output_stride)) if backbone == "mobilenet_v2" else (lambda: ResNet(backbone, output_stride))
        features = make()
        factor = 16 // output_stride
        self.aspp = ASPP(features.channels[3], width, (6 * factor, 12 * factor, 18 * factor), dropout)
        self.low = conv_bn(features.channels[0], low_width, 1)
        init_weights(self)
        self.backbone = features

    def forward(self, x: Tensor) -> Tensor:
        low, _, _, high = self.backbone(x)
        low = self.low(low)
        high = resize_like(self.aspp(high), low)
        logits: Tensor = self.classifier(self.head(torch.cat([high, low], dim=1)))
        return logits
