"""SegNet and SegNet-Basic (Badrinarayanan, Kendall, Cipolla, PAMI 2017): decoders upsampled by the encoder's max-pool indices.

Local contrast normalisation of the input (section 4.1) is left to the preprocessing of the model folder, which takes a mean
and a deviation for each channel instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.backbones.vgg import VGG16, scaled_stages
from edgeseg.models.blocks import conv_bn, init_weights
from edgeseg.ops.pytorch.max_pool import max_pool_indices, max_unpool

Stage = Callable[[Tensor], Tensor]


class SegNet(nn.Module):
    """Logits at the input's resolution: VGG16's thirteen convolutions, mirrored (section 3, figure 2).

    The thirteenth of the decoder is the classifier, which gives the published 29.45 M parameters.

    Args:
        num_classes: number of logit channels.
        width: factor of all channels; 1 is the paper's.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        stages = scaled_stages(width)
        self.decoder = nn.ModuleList(_decoder_stage(stages, index) for index in range(5))
        self.classifier = nn.Conv2d(stages[0][0], num_classes, 3, padding=1)
        init_weights(self)
        self.backbone = VGG16(batch_norm=True, width=width)

    def forward(self, x: Tensor) -> Tensor:
        x = _encode_decode(x, [self.backbone.stage(index) for index in range(5)], list(self.decoder))
        logits: Tensor = self.classifier(x)
        return logits


class SegNetBasic(nn.Module):
    """Four encoders and decoders of one 7x7 convolution each, without biases and with no ReLU in the decoder (section 3.2).

    Args:
        num_classes: number of logit channels.
        features: channels of every layer.
        kernel: side of the convolutions, odd.

    Raises:
        EdgesegError: an even kernel.
    """

    def __init__(self, num_classes: int, features: int = 64, kernel: int = 7) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise EdgesegError(f"kernel {kernel}", "an odd side")
        self.encoder = nn.ModuleList(conv_bn(features if index else 3, features, kernel) for index in range(4))
        self.decoder = nn.ModuleList(conv_bn(features, features, kernel, relu=False) for _ in range(4))
        self.classifier = nn.Conv2d(features, num_classes, 1)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(_encode_decode(x, list(self.encoder), list(self.decoder)))
        return logits


def _encode_decode(x: Tensor, encoder: list[Stage], decoder: list[Stage]) -> Tensor:
    """Each encoder stage ends in ReLU and is pooled; the decoder's stages, finest first, undo the pools."""
    kept: list[tuple[Tensor, int, int]] = []
    for stage in encoder:
        x = stage(x)
        height, width = x.shape[-2:]
        x, indices = max_pool_indices(_even(x), 2, 2)
        kept.append((indices, height, width))
    for stage, (indices, height, width) in zip(reversed(decoder), reversed(kept), strict=True):
        x = stage(max_unpool(x, indices, 2 * x.shape[-2], 2 * x.shape[-1])[..., :height, :width])
    return x


def _even(x: Tensor) -> Tensor:
    """Pad to even sizes with zeros, which never win after ReLU: an unpooled plane then has one possible size, where

    ONNX's MaxUnpool with an odd ``output_shape`` is read in two ways by different runtimes.
    """
    height, width = x.shape[-2:]
    # While a dynamic graph is traced the sizes are symbols, and the padding has to be part of the graph.
    known_even = isinstance(height, int) and isinstance(width, int) and height % 2 == 0 and width % 2 == 0
    return x if known_even else F.pad(x, (0, width % 2, 0, height % 2))


def _decoder_stage(stages: list[list[int]], index: int) -> nn.Sequential:
    """The mirror of encoder stage ``index``; its last convolution narrows to the stage above or, in the first, classifies."""
    widths = list(reversed(stages[index]))
    outputs = [*widths[1:], stages[index - 1][-1]] if index else widths[1:]
    return nn.Sequential(*(conv_bn(cin, cout) for cin, cout in zip(widths, outputs, strict=False)))
