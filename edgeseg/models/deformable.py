"""Multi-scale deformable attention (Zhu et al., ICLR 2021, equation 3), by bilinear sampling that every runtime has."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.queries import FeedForward

Sizes = list[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Each token of all levels looks at ``points`` places around itself on every level, for each head.

    Args:
        dim, heads: width of a token, and heads among which it is divided.
        levels, points: number of levels, and of places on each.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def reset(self) -> None:
        """The published start: head i looks in direction i, point k k cells away; all places weigh the same."""
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        start = directions[:, None, None] * steps[None, None, :, None]
        with torch.no_grad():
            self.offsets.bias.copy_(start.expand(-1, self.levels, -1, -1).reshape(-1))

    def forward(self, query: Tensor, tokens: Tensor, centres: Tensor, sizes: Sizes) -> Tensor:
        """(N, L, dim).

        Args:
            query: (N, L, dim), the tokens with their positions added.
            tokens: (N, L, dim) of all levels one after the other, in rows.
            centres: (L, 2) x, y of each token in 0..1 of the picture.
            sizes: (h, w) of each level.
        """
        n, length, dim = tokens.shape
        places, weights = self._places(query)
        values = self._planes(self.value(tokens), sizes)
        total: Tensor | None = None
        for level, (height, width) in enumerate(sizes):
            # grid_sample's -1 and 1 are the picture's edges; an offset of 1 is one cell of that level.
            cells = torch.tensor([2.0 / width, 2.0 / height], device=query.device)
            grid = (2 * centres - 1)[None, :, None] + places[level] * cells
            seen = F.grid_sample(values[level], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            part = (seen * weights[level][:, None]).sum(-1)
            total = part if total is None else total + part
        assert total is not None
        y: Tensor = self.out(total.reshape(n, dim, length).transpose(1, 2))
        return y

    def _places(self, query: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each level the offsets in cells (N * heads, L, points, 2) and their weights (N * heads, L, points)."""
        n, length = query.shape[:2]
        each = self.levels * self.points
        offsets = self.offsets(query).float().reshape(n, length, self.heads, each * 2).transpose(1, 2)
        offsets = offsets.reshape(n * self.heads, length, each, 2)
        weights = self.weights(query).float().reshape(n, length, self.heads, each).softmax(-1).transpose(1, 2)
        weights = weights.reshape(n * self.heads, length, each)
        return list(offsets.split(self.points, 2)), list(weights.split(self.points, 2))

    def _planes(self, values: Tensor, sizes: Sizes) -> list[Tensor]:
        """Each level as (N * heads, dim / heads, h, w)."""
        n, _, dim = values.shape
        planes, start = [], 0
        for height, width in sizes:
            part = values[:, start : start + height * width].float().transpose(1, 2)
            planes.append(part.reshape(n * self.heads, dim // self.heads, height, width))
            start = start + height * width
        return planes


class DeformableLayer(nn.Module):
    """Deformable self-attention and feed-forward step, each with shortcut and layer norm."""

    def __init__(self, dim: int, heads: int, levels: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(dim, heads, levels, points)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout)

    def forward(self, x: Tensor, at: Tensor, centres: Tensor, sizes: Sizes) -> Tensor:
        x = self.norm(x + self.dropout(self.attention(x + at, x, centres, sizes)))
        y: Tensor = self.feed_forward(x)
        return y


def cell_centres(sizes: Sizes, device: torch.device) -> Tensor:
    """(L, 2): x, y in 0..1 of the cells of all levels, in rows."""
    found = []
    for height, width in sizes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        plane = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
        found.append(plane.reshape(height * width, 2))
    return torch.cat(found)
