"""U-Net (Ronneberger, Fischer, Brox, MICCAI 2015) with padded convolutions and batch normalisation.

The defaults give the published layout. ``block="residual"`` with ``stem_stride=2``, bilinear upsampling and dilation at the
bottom gives the light variant that the shipped street models use: every heavy layer is a dense 3x3 convolution, which is
what INT8 units run fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.blocks import ResidualBlock, conv_bn, init_weights, match_size

TrainOutput = Tensor | list[Tensor]


class UNet(nn.Module):
    """Encoder, decoder and a 1x1 classifier; logits at ``stem_stride``.

    Args:
        num_classes: number of logit channels.
        widths: channels of each level, finest first.
        depths: blocks of each encoder level; the first may be 0 (the stem alone).
        block: "plain" (conv-conv after 2x2 max-pooling, as published) or "residual" (strided residual blocks).
        stem_stride: stride of the first convolution, 1 as published.
        upsample: "transposed" (2x2 up-convolution, as published) or "bilinear" (1x1 convolution, then resize).
        dilations: dilation of each block of the last level; shorter lists are repeated.
        dropout: channel dropout at the bottom.
        deep_supervision: in training, classify the decoder's level-2 features too; takes four levels or more.

    Raises:
        EdgesegError: options that do not fit each other.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        depths: Sequence[int] | None = None,
        block: str = "plain",
        stem_stride: int = 1,
        upsample: str = "transposed",
        dilations: Sequence[int] = (1,),
        dropout: float = 0.0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        depths = depths or (1,) * len(widths)
        _check_options(widths, depths, block, upsample, dilations, deep_supervision)
        last = len(widths) - 1
        self.stem = conv_bn(3, widths[0], stride=stem_stride)
        self.encoder = nn.ModuleList()
        for level, width in enumerate(widths):
            previous = widths[max(level - 1, 0)]
            rates = dilations if level == last else (1,)
            self.encoder.append(_encoder_level(block, previous, width, depths[level], level > 0, rates))
        self.dropout = nn.Dropout2d(dropout)
        self.up = nn.ModuleList(_Up(widths[level + 1], widths[level], upsample) for level in range(last))
        self.decoder = nn.ModuleList(_decoder_level(block, widths[level]) for level in range(last))
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        self.auxiliary = nn.Conv2d(widths[2], num_classes, 1) if deep_supervision else None
        init_weights(self)

    def forward(self, x: Tensor) -> TrainOutput:
        x = self.stem(x)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = self.dropout(skips.pop())
        extra: list[Tensor] = []
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.up[level](x, skips[level]))
            if level == 2 and self.auxiliary is not None and self.training:
                extra.append(self.auxiliary(x))
        logits: Tensor = self.classifier(x)
        return [logits, *extra] if extra else logits


def _check_options(
    widths: Sequence[int], depths: Sequence[int], block: str, upsample: str, dilations: Sequence[int], deep_supervision: bool
) -> None:
    if block not in ("plain", "residual"):
        raise EdgesegError(f"block {block!r}", "plain or residual")
    if upsample not in ("transposed", "bilinear"):
        raise EdgesegError(f"upsample {upsample!r}", "transposed or bilinear")
    if len(widths) < 2 or min(widths) < 1:
        raise EdgesegError(f"widths {list(widths)}", "positive widths of at least two levels")
    if len(depths) != len(widths) or min(depths[1:]) < 1 or depths[0] < 0:
        raise EdgesegError(f"depths {list(depths)} for {len(widths)} levels", "a depth for each level; only the first may be 0")
    if not dilations or min(dilations) < 1:
        raise EdgesegError(f"dilations {list(dilations)}", "one or more positive numbers")
    if deep_supervision and len(widths) < 4:
        raise EdgesegError(f"deep_supervision with {len(widths)} levels", "four levels or more")


class _Up(nn.Module):
    """Upsample the coarse features to the skip's size and concatenate: (N, 2 * width, h, w)."""

    def __init__(self, cin: int, width: int, mode: str) -> None:
        super().__init__()
        # Named by what it does, as the two are no drop-in replacement of each other in a checkpoint.
        self.add_module(
            *("reduce", conv_bn(cin, width, 1)) if mode == "bilinear" else ("transposed", nn.ConvTranspose2d(cin, width, 2, 2))
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return torch.cat([match_size(x, skip), skip], dim=1)


def _encoder_level(block: str, cin: int, width: int, depth: int, down: bool, rates: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    if block == "plain":
        if down:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        for index in range(depth):
            layers += [conv_bn(cin if index == 0 else width, width), conv_bn(width, width)]
        return nn.Sequential(*layers)
    for index in range(depth):
        stride = 2 if down and index == 0 else 1
        layers.append(ResidualBlock(cin if index == 0 else width, width, stride, rates[index % len(rates)]))
    return nn.Sequential(*layers)


def _decoder_level(block: str, width: int) -> nn.Sequential:
    if block == "plain":
        return nn.Sequential(conv_bn(2 * width, width), conv_bn(width, width))
    return nn.Sequential(conv_bn(2 * width, width))
