"""SegNet (Badrinarayanan, Kendall, Cipolla, PAMI 2017): VGG16 encoder, decoder upsampled by the encoder's max-pool indices."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.backbones.vgg import STAGES, VGG16
from edgeseg.models.blocks import conv_bn, init_weights
from edgeseg.ops.pytorch.max_pool import max_pool_indices, max_unpool


class SegNet(nn.Module):
    """Logits at the input's resolution. The decoder mirrors the encoder (section 3, figure 2).

    Args:
        num_classes: number of logit channels.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.decoder = nn.ModuleList(_decoder_stage(index) for index in range(5))
        self.classifier = nn.Conv2d(STAGES[0][0], num_classes, 3, padding=1)
        init_weights(self)
        self.backbone = VGG16(batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[tuple[Tensor, int, int]] = []
        for index in range(5):
            x = self.backbone.stage(index)(x)
            height, width = x.shape[-2:]
            x, indices = max_pool_indices(_even(x), 2, 2)
            kept.append((indices, height, width))
        for index in reversed(range(5)):
            indices, height, width = kept[index]
            x = max_unpool(x, indices, 2 * x.shape[-2], 2 * x.shape[-1])[..., :height, :width]
            x = self.decoder[index](x)
        logits: Tensor = self.classifier(x)
        return logits


def _even(x: Tensor) -> Tensor:
    """Pad to even sizes with zeros, which never win after ReLU: an unpooled plane then has one possible size, where

    ONNX's MaxUnpool with an odd ``output_shape`` is read in two ways by different runtimes.
    """
    height, width = x.shape[-2:]
    # While a dynamic graph is traced the sizes are symbols, and the padding has to be part of the graph.
    known_even = isinstance(height, int) and isinstance(width, int) and height % 2 == 0 and width % 2 == 0
    return x if known_even else F.pad(x, (0, width % 2, 0, height % 2))


def _decoder_stage(index: int) -> nn.Sequential:
    """The mirror of encoder stage ``index``; its last convolution narrows to the stage above."""
    widths = list(reversed(STAGES[index]))
    narrow = STAGES[index - 1][-1] if index else STAGES[0][0]
    outputs = [*widths[1:], narrow]
    return nn.Sequential(*(conv_bn(cin, cout) for cin, cout in zip(widths, outputs, strict=True)))
