"""DeepLab v3 (Chen, Papandreou, Schroff, Adam, arXiv 1706.05587, 2017): ASPP with image-level features on a dilated ResNet.

Parameter names are torchvision's; ``multi_grid=None, output_stride=8`` is its deeplabv3_resnet50 and 101.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from edgeseg.models.aspp import TorchvisionASPP, scaled_rates
from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import conv_bn, init_weights


class DeepLabV3(nn.Module):
    """Logits at ``output_stride``.

    Args:
        num_classes: number of logit channels.
        backbone: a name in ``backbones.dilated``.
        output_stride: 16 or 8. The weights are the same, so a network trained at 16 is fine-tuned or evaluated at 8
            (section 4.1); the rates of ASPP double (section 3.3).
        rates: of ASPP's 3x3 convolutions at output stride 16.
        multi_grid: unit rates of a ResNet's last stage (section 3.2.1), see ``ResNet``; None for torchvision's.
        width: channels of ASPP and of the last 3x3 convolution.
        dropout: behind ASPP.
        backbone_options: of the backbone's constructor.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        output_stride: int = 16,
        rates: Sequence[int] = (6, 12, 18),
        multi_grid: Sequence[int] | None = (1, 2, 4),
        width: int = 256,
        dropout: float = 0.5,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        more: dict[str, Any] = {"multi_grid": multi_grid} if backbone.startswith("resnet") else {}
        features = make_backbone(backbone, output_stride, backbone_options, **more)
        aspp = TorchvisionASPP(features.channels[3], width, scaled_rates(rates, output_stride), dropout)
        self.classifier = nn.Sequential(aspp, *conv_bn(width, width), nn.Conv2d(width, num_classes, 1))
        init_weights(self)
        self.backbone = features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(x)[3])
        return logits

    def convert_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file without the auxiliary head that torchvision's trained networks have."""
        return {name: tensor for name, tensor in state.items() if not name.startswith("aux_classifier.")}
