"""Arithmetic on boxes (..., 4) float32: x1, y1, x2, y2."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_GROWTH = math.log(1000 / 16)
"""Largest logarithm of a side's growth that ``decode`` follows: a wild delta must not overflow."""

Weights = tuple[float, float, float, float]


def area(boxes: Tensor) -> Tensor:
    """(...) square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def shared_area(first: Tensor, second: Tensor) -> Tensor:
    """(A, B) square pixels that boxes (A, 4) and (B, 4) have in common."""
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (high - torch.maximum(first[:, None, :2], second[None, :, :2])).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4); 0 for two empty boxes."""
    shared = shared_area(first, second)
    return shared / (area(first)[:, None] + area(second)[None] - shared).clamp(min=1e-9)


def covered(boxes: Tensor, regions: Tensor) -> Tensor:
    """(A) the largest share of each box (A, 4) that lies within one of the regions (B, 4); 0 without regions."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    return (shared_area(boxes, regions) / area(boxes).clamp(min=1e-9)[:, None]).amax(1)


def encode(truth: Tensor, boxes: Tensor, weights: Weights) -> Tensor:
    """Deltas (N, 4) that take ``boxes`` (N, 4) to ``truth`` (N, 4) (Girshick et al., CVPR 2014, appendix C), by ``weights``."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    target, extent = (truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]
    deltas = torch.cat([(target - centre) / size, torch.log(extent / size)], dim=1)
    return deltas * deltas.new_tensor(weights)


def decode(deltas: Tensor, boxes: Tensor, weights: Weights, height: int, width: int) -> Tensor:
    """Boxes (..., 4) after ``deltas`` (..., 4), cut at the picture's edges; the inverse of ``encode``."""
    sides = []
    for axis, limit in ((0, width), (1, height)):
        low, high = boxes[..., axis], boxes[..., axis + 2]
        size = high - low
        centre = low + 0.5 * size + deltas[..., axis] / weights[axis] * size
        half = 0.5 * size * torch.exp((deltas[..., axis + 2] / weights[axis + 2]).clamp(max=MOST_GROWTH))
        sides.append([(centre - half).clamp(0, limit), (centre + half).clamp(0, limit)])
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=-1)


def at_least(boxes: Tensor, side: float) -> Tensor:
    """(...) bool: neither side is shorter than ``side`` px."""
    return (boxes[..., 2] - boxes[..., 0] >= side) & (boxes[..., 3] - boxes[..., 1] >= side)
