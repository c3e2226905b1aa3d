"""RefineNet (Lin, Milan, Shen, Reid, CVPR 2017): four blocks that refine coarse features by finer ones, on a ResNet."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import init_weights, resize_like


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, and the identity (figure 3, b); no batch normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return y


class ChainedPooling(nn.Module):
    """Each link pools the last one's output 5x5 at stride 1 and convolves it; all are added up (figure 3, d)."""

    def __init__(self, width: int, links: int) -> None:
        super().__init__()
        self.links = nn.ModuleList(_conv(width, width) for _ in range(links))

    def forward(self, x: Tensor) -> Tensor:
        x = link = F.relu(x)
        for conv in self.links:
            link = conv(F.max_pool2d(link, 5, 1, 2))
            x = x + link
        return x


class RefineBlock(nn.Module):
    """Adapt the backbone's features, fuse them with the coarser block's, pool, and adapt the result (figure 3, a).

    Args:
        cin, width: channels of the backbone's features and of the block.
        coarse: channels of the coarser block's output, None for the first block, which has nothing to fuse.
        links, units: of the chained pooling; residual units behind it.
    """

    def __init__(self, cin: int, width: int, coarse: int | None, links: int, units: int) -> None:
        super().__init__()
        self.reduce = _conv(cin, width)
        self.adapt = nn.Sequential(ResidualUnit(width), ResidualUnit(width))
        self.fine = None if coarse is None else _conv(width, width)
        self.coarse = None if coarse is None else _conv(coarse, width)
        self.pool = ChainedPooling(width, links)
        self.output = nn.Sequential(*(ResidualUnit(width) for _ in range(units)))

    def forward(self, x: Tensor, coarse: Tensor | None) -> Tensor:
        x = self.adapt(self.reduce(x))
        if self.fine is not None and self.coarse is not None and coarse is not None:
            x = self.fine(x)
            x = x + resize_like(self.coarse(coarse), x)
        y: Tensor = self.output(self.pool(x))
        return y


class RefineNet(nn.Module):
    """Logits at stride 4, from a cascade of four blocks (figure 2, c).

    Args:
        num_classes: number of logit channels.
        backbone: a name in ``backbones.dilated``.
        width: channels of the blocks; the coarsest has twice as many.
        links, units: chained pooling and output units of each block, as in the released network.
        dropout: on the two coarsest features.
        backbone_options: of the backbone's constructor.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        width: int = 256,
        links: int = 4,
        units: int = 3,
        dropout: float = 0.5,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        features = make_backbone(backbone, 32, backbone_options, strides=(32,))
        widths, inputs = (2 * width, width, width, width), tuple(reversed(features.channels))
        coarser = (None, *widths[:-1])
        self.blocks = nn.ModuleList(
            RefineBlock(cin, own, coarse, links, units) for cin, own, coarse in zip(inputs, widths, coarser, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 3, padding=1)
        init_weights(self)
        _calm(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        self.backbone = features

    def forward(self, x: Tensor) -> Tensor:
        fine, quarter, half, top = self.backbone(x)
        refined: Tensor | None = None
        for block, features in zip(self.blocks, (self.dropout(top), self.dropout(half), quarter, fine), strict=True):
            refined = block(features, refined)
        logits: Tensor = self.classifier(refined)
        return logits


def _calm(network: nn.Module) -> None:
    """Let unnormalised features start in scale: units as identities, pooling links from small weights."""
    for module in network.modules():
        if isinstance(module, ResidualUnit):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, ChainedPooling):
            for conv in module.links:
                nn.init.normal_(conv.weight, std=0.01)  # type: ignore[arg-type]


def _conv(cin: int, cout: int) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, padding=1, bias=False)
