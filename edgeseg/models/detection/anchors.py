"""Anchors: one scale a pyramid level, a few aspect ratios (Lin et al., CVPR 2017, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""


def cell_anchors(side: float, ratios: Sequence[float] = RATIOS) -> list[list[float]]:
    """Boxes around the origin of area side * side, one a ratio, rounded to whole pixels as published weights expect."""
    boxes = []
    for ratio in ratios:
        height = side * ratio**0.5
        width = side / ratio**0.5
        boxes.append([float(round(value / 2)) for value in (-width, -height, width, height)])
    return boxes


def anchor_grid(feature: Tensor, stride: int, cells: list[list[float]]) -> Tensor:
    """Anchors (H * W * A, 4) of a level (N, C, H, W), row by row; those of cell (i, j) lie around (j, i) * stride."""
    height, width = feature.shape[-2:]
    rows, columns = (torch.arange(size, dtype=torch.float32, device=feature.device) * stride for size in (height, width))
    rows, columns = rows[:, None].expand(height, width), columns[None].expand(height, width)
    places = torch.stack([columns, rows, columns, rows], dim=-1)
    base = torch.tensor(cells, dtype=torch.float32, device=feature.device)
    return (places[:, :, None] + base).reshape(-1, 4)
