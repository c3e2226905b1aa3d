"""DeepLab v1 (Chen et al., ICLR 2015): VGG16 with holes, in its LargeFOV variant.

The paper refines the scores by a dense CRF, which is the ``crf`` section of the manifest here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.backbones.vgg import VGG16


class AtrousVGG(VGG16):
    """VGG16 held at output stride 8 (section 3.1): (N, 3, H, W) to (N, C, H/8, W/8) behind pool 5.

    The last two poolings do not stride and the convolutions between them have holes. Poolings are 3x3, as in the
    paper's released network: at stride 1 a 2x2 window would shift the picture.
    """

    def __init__(self, batch_norm: bool = False, width: float = 1.0) -> None:
        super().__init__(batch_norm, width)
        for layer in self.stage(4):
            if isinstance(layer, nn.Conv2d):
                layer.dilation = layer.padding = (2, 2)

    def forward(self, x: Tensor) -> Tensor:
        for index in range(5):
            x = F.max_pool2d(self.stage(index)(x), 3, 2 if index < 3 else 1, 1)
        return x


def fully_connected(cin: int, width: int, num_classes: int, rate: int, dropout: float) -> nn.Sequential:
    """fc6 (3x3 with holes), fc7 and fc8 as convolutions, the last from small weights."""
    layers = [nn.Conv2d(cin, width, 3, padding=rate, dilation=rate), nn.Conv2d(width, width, 1), nn.Conv2d(width, num_classes, 1)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    nn.init.normal_(layers[-1].weight, std=0.01)
    six, seven, eight = layers
    return nn.Sequential(six, nn.ReLU(inplace=True), nn.Dropout(dropout), seven, nn.ReLU(inplace=True), nn.Dropout(dropout), eight)


class DeepLabV1(nn.Module):
    """Logits at stride 8.

    Args:
        num_classes: number of logit channels.
        rate: holes of fc6; 12 sees 224 pixels of the picture (section 5.1, LargeFOV).
        fc_channels: width of fc6 and fc7, 1024 in LargeFOV.
        dropout: after fc6 and fc7.
        batch_norm, width: see ``VGG16``; the paper's network is not normalised.
    """

    def __init__(
        self,
        num_classes: int,
        rate: int = 12,
        fc_channels: int = 1024,
        dropout: float = 0.5,
        batch_norm: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = AtrousVGG(batch_norm, width)
        self.classifier = fully_connected(self.backbone.channels[4], fc_channels, num_classes, rate, dropout)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(x))
        return logits
