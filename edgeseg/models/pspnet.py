"""PSPNet (Zhao et al., CVPR 2017): a pyramid of regional averages on a dilated ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.dilated import make_backbone
from edgeseg.models.blocks import conv_bn, init_weights, require_frames, resize_like

TrainOutput = Tensor | list[Tensor]


def region_averages(size: int, bins: Sequence[int], device: torch.device) -> Tensor:
    """(size, sum of bins) whose columns average a line of ``size`` pixels over the regions of each of ``bins`` in turn.

    Region i of b spans floor(i size / b) to ceil((i + 1) size / b), as adaptive pooling has it. While a dynamic graph is
    traced ``size`` is a symbol, and the matrix is computed by the graph.
    """
    first = torch.tensor([index for count in bins for index in range(count)], device=device)
    count = torch.tensor([count for count in bins for _ in range(count)], device=device)
    start, stop = first * size // count, ((first + 1) * size + count - 1) // count
    pixels = torch.arange(size, device=device)[:, None]
    inside = (pixels >= start) & (pixels < stop)
    return inside.float() / (stop - start).float()


class PyramidPooling(nn.Module):
    """Averages over 1x1, 2x2, ... regions, reduced, enlarged and concatenated to what they are of (figure 3, c).

    All regions of all levels are averaged by two products, with a matrix of rows and one of columns: runtimes differ in
    what adaptive pooling they have, but all multiply matrices, at any size.
    """

    def __init__(self, cin: int, bins: Sequence[int]) -> None:
        super().__init__()
        if not bins or min(bins) < 1 or cin < len(bins):
            raise EdgesegError(f"bins {list(bins)} for {cin} channels", "one or more positive numbers, at most one a channel")
        self.bins = tuple(bins)
        self.width = cin // len(bins)
        self.reduce = nn.ModuleList(conv_bn(cin, self.width, 1) for _ in bins)

    def forward(self, x: Tensor) -> Tensor:
        require_frames(self, x, "the averages of whole pictures")
        features, start = [x], 0
        averages = self.averages(x)
        for bins, reduce in zip(self.bins, self.reduce, strict=True):
            # The blocks on the diagonal: those off it mix rows of one level with columns of another.
            own = averages[..., start : start + bins, start : start + bins]
            features.append(resize_like(reduce(own), x))
            start += bins
        return torch.cat(features, dim=1)

    def averages(self, x: Tensor) -> Tensor:
        """(N, C, B, B) of (N, C, h, w), with B the sum of the bins: rows of every level by columns of every level."""
        height, width = x.shape[-2:]
        columns, rows = (region_averages(size, self.bins, x.device).to(x.dtype) for size in (width, height))
        return rows.T @ (x @ columns)


class PSPNet(nn.Module):
    """Logits at ``output_stride``; in training also those of an auxiliary head on stage 4.

    Args:
        num_classes: number of logit channels.
        backbone: a name in ``backbones.dilated``.
        output_stride: 8 as published, or 16.
        bins: regions a side of each level of the pyramid.
        width: channels of the last 3x3 convolution, a quarter of ResNet-50's features.
        dropout: before the classifiers.
        auxiliary: whether there is an auxiliary head (section 3.3; its weight is the training's).
        backbone_options: of the backbone's constructor; ``{"deep_stem": true}`` is the stem of the paper's code.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        output_stride: int = 8,
        bins: Sequence[int] = (1, 2, 3, 6),
        width: int = 512,
        dropout: float = 0.1,
        auxiliary: bool = True,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        features = make_backbone(backbone, output_stride, backbone_options)
        middle, cin = features.channels[2:]
        self.pyramid = PyramidPooling(cin, bins)
        self.head = nn.Sequential(conv_bn(cin + len(bins) * self.pyramid.width, width), nn.Dropout2d(dropout))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.auxiliary = _auxiliary(middle, num_classes, dropout) if auxiliary else None
        init_weights(self)
        self.backbone = features

    def forward(self, x: Tensor) -> TrainOutput:
        _, _, middle, high = self.backbone(x)
        logits: Tensor = self.classifier(self.head(self.pyramid(high)))
        return [logits, self.auxiliary(middle)] if self.training and self.auxiliary is not None else logits


def _auxiliary(cin: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(conv_bn(cin, cin // 4), nn.Dropout2d(dropout), nn.Conv2d(cin // 4, num_classes, 1))
