"""PAN, the pyramid attention network (Li, Xiong, An, Wang, BMVC 2018), on a dilated ResNet."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import conv_bn, init_weights, require_frames, resize_like

_KERNELS = (7, 5, 3)


class FeaturePyramidAttention(nn.Module):
    """Features weighed by a pyramid of 7x7, 5x5 and 3x3 convolutions, plus those of the whole picture (figure 3, b).

    Args:
        cin, width: channels before and after.
        maps: channels of the pyramid: 1 weighs all channels alike, ``width`` each by its own map.
    """

    def __init__(self, cin: int, width: int, maps: int) -> None:
        super().__init__()
        self.features = conv_bn(cin, width, 1)
        self.image = conv_bn(cin, width, 1)
        inputs = (cin, maps, maps)
        self.down = nn.ModuleList(conv_bn(a, maps, kernel) for a, kernel in zip(inputs, _KERNELS, strict=True))
        self.across = nn.ModuleList(conv_bn(maps, maps, kernel) for kernel in _KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        require_frames(self, x, "the features of whole pictures")
        levels, level = [], x
        for down in self.down:
            # 3x3 with padding, so that the smallest picture has all three levels.
            level = down(F.max_pool2d(level, 3, 2, 1))
            levels.append(level)
        attention = self.across[2](levels[2])
        for index in (1, 0):
            own = self.across[index](levels[index])
            attention = own + resize_like(attention, own)
        y: Tensor = self.features(x) * resize_like(attention, x) + self.image(x.mean((2, 3), keepdim=True))
        return y


class GlobalAttentionUpsample(nn.Module):
    """Fine features weighed channel by channel by the coarse ones' means, plus the coarse ones enlarged (figure 4)."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.fine = conv_bn(cin, width, relu=False)
        self.weights = conv_bn(width, width, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        weighed: Tensor = self.fine(fine) * self.weights(coarse.mean((2, 3), keepdim=True))
        return weighed + resize_like(coarse, weighed)


class PAN(nn.Module):
    """Logits at stride 4.

    Args:
        num_classes: number of logit channels.
        backbone: a name in ``backbones.dilated``.
        output_stride: 16 as published, or 8.
        width: channels of attention and decoder.
        maps: attention maps of the pyramid, 1 or ``width``.
        backbone_options: of the backbone's constructor.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        output_stride: int = 16,
        width: int = 256,
        maps: int = 1,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        features = make_backbone(backbone, output_stride, backbone_options)
        self.attention = FeaturePyramidAttention(features.channels[3], width, maps)
        self.up = nn.ModuleList(GlobalAttentionUpsample(cin, width) for cin in reversed(features.channels[:3]))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        init_weights(self)
        self.backbone = features

    def forward(self, x: Tensor) -> Tensor:
        *finer, top = self.backbone(x)
        y = self.attention(top)
        for up, fine in zip(self.up, reversed(finer), strict=True):
            y = up(fine, y)
        logits: Tensor = self.classifier(y)
        return logits
