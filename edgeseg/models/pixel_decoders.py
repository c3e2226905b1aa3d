"""Pixel decoders of MaskFormer and Mask2Former: backbone features to pixel embeddings at stride 4 and maps to look at."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import init_weights, resize_like
from edgeseg.models.deformable import DeformableAttention, DeformableLayer, cell_centres
from edgeseg.models.queries import EncoderLayer, init_attention, sine_positions, to_tokens


class Pixels(NamedTuple):
    """What a pixel decoder gives.

    Attributes:
        embedding: (N, mask_dim, H / 4, W / 4), what masks are drawn from.
        scales: (N, dim, h, w) at strides 32, 16 and 8.
        encoded: (N, dim, H / 32, W / 32) of the transformer encoder, where there is one.
    """

    embedding: Tensor
    scales: list[Tensor]
    encoded: Tensor | None = None


def conv_gn(cin: int, cout: int, kernel: int, relu: bool, bias: bool = False) -> nn.Sequential:
    """Convolution that keeps the size, normalisation over 32 groups (or what divides the channels) and perhaps ReLU."""
    layers = [nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=bias), nn.GroupNorm(math.gcd(32, cout), cout)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class FPNDecoder(nn.Module):
    """A feature pyramid (MaskFormer, section 4.1): nearest upsampling, sum, 3x3 convolution, group normalisation.

    Args:
        cins: channels of the backbone at strides 4, 8, 16 and 32.
        dim, mask_dim: channels of the maps and of the pixel embeddings.
        encoder_layers: of a transformer encoder on the map at stride 32; 0 is none.
        heads, hidden, dropout: of that encoder.
    """

    def __init__(
        self,
        cins: list[int],
        dim: int,
        mask_dim: int,
        encoder_layers: int = 0,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.lateral = nn.ModuleList(conv_gn(cin, dim, 1, relu=False) for cin in cins[:3])
        top = dim if encoder_layers else cins[3]
        self.outputs = nn.ModuleList([*(conv_gn(dim, dim, 3, relu=True) for _ in cins[:3]), conv_gn(top, dim, 3, relu=True)])
        self.embedding = nn.Conv2d(dim, mask_dim, 3, padding=1)
        self.project = nn.Conv2d(cins[3], dim, 1) if encoder_layers else None
        self.encoder = nn.ModuleList(EncoderLayer(dim, heads, hidden, dropout) for _ in range(encoder_layers))
        init_weights(self)
        init_attention(self.encoder)

    def forward(self, features: list[Tensor]) -> Pixels:
        top, encoded = features[3], None
        if self.project is not None:
            top = encoded = self._encode(self.project(top))
        x = self.outputs[3](top)
        scales = [x]
        for level in (2, 1, 0):
            fine = self.lateral[level](features[level])
            x = self.outputs[level](fine + F.interpolate(x, size=fine.shape[-2:], mode="nearest"))
            scales.append(x)
        return Pixels(self.embedding(x), scales[:3], encoded)

    def _encode(self, x: Tensor) -> Tensor:
        n, dim, height, width = x.shape
        at, tokens = sine_positions(height, width, self.dim, x.device), to_tokens(x)
        for layer in self.encoder:
            tokens = layer(tokens, at)
        return tokens.transpose(1, 2).reshape(n, dim, height, width)


class DeformableDecoder(nn.Module):
    """Multi-scale deformable attention over strides 32, 16 and 8, and one step of a pyramid to stride 4 (Mask2Former, section 4.1).

    Args:
        cins: channels of the backbone at strides 4, 8, 16 and 32.
        dim, mask_dim: channels of the maps and of the pixel embeddings.
        layers, heads, points, hidden, dropout: of the encoder: 6, 8, 4, 1024 and 0 in the paper.
    """

    def __init__(
        self,
        cins: list[int],
        dim: int,
        mask_dim: int,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        hidden: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.ModuleList(conv_gn(cin, dim, 1, relu=False, bias=True) for cin in cins[:0:-1])
        self.level = nn.Parameter(torch.empty(3, dim))
        self.encoder = nn.ModuleList(DeformableLayer(dim, heads, 3, points, hidden, dropout) for _ in range(layers))
        self.lateral = conv_gn(cins[0], dim, 1, relu=False)
        self.output = conv_gn(dim, dim, 3, relu=True)
        self.embedding = nn.Conv2d(dim, mask_dim, 1)
        init_weights(self)
        init_attention(self.encoder)
        nn.init.normal_(self.level)
        for module in self.encoder.modules():
            if isinstance(module, DeformableAttention):
                module.reset()

    def forward(self, features: list[Tensor]) -> Pixels:
        maps = [project(item) for project, item in zip(self.project, features[:0:-1], strict=True)]
        sizes = [(item.shape[2], item.shape[3]) for item in maps]
        device = maps[0].device
        at = torch.cat([sine_positions(*size, self.dim, device) + self.level[i] for i, size in enumerate(sizes)], dim=1)
        tokens, centres = torch.cat([to_tokens(item) for item in maps], dim=1), cell_centres(sizes, device)
        for layer in self.encoder:
            tokens = layer(tokens, at, centres, sizes)
        scales, start = [], 0
        for height, width in sizes:
            part = tokens[:, start : start + height * width].transpose(1, 2)
            scales.append(part.reshape(part.shape[0], self.dim, height, width))
            start = start + height * width
        fine = self.lateral(features[0])
        return Pixels(self.embedding(self.output(fine + resize_like(scales[2], fine))), scales)
