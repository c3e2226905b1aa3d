"""Keypoints to places on the m * m map of a box, and back (He et al., ICCV 2017, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor


def places_of(points: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(P, K) int64, row * side + column of points (P, K, 3) x, y, v in boxes (P, 4); -1 unlabelled or outside."""
    low, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)[:, None]
    at = (points[..., :2] - low) / size
    # A point on the far edge belongs to the last place.
    cells = (at * side).floor().long().clamp(max=side - 1)
    known = (points[..., 2] > 0) & ((at >= 0) & (at <= 1)).all(-1)
    return torch.where(known, cells[..., 1] * side + cells[..., 0], -1)


def points_of(logits: Tensor, boxes: Tensor) -> Tensor:
    """(D, K, 3) x, y, score of maps (D, K, m, m) over boxes (D, 4).

    A point is the centre of the place with the largest logit; its score is that place's share of the softmax over the map.
    """
    side = logits.shape[-1]
    best, place = logits.flatten(2).max(-1)
    score = torch.exp(best - torch.logsumexp(logits.flatten(2), -1))
    row = torch.div(place, side, rounding_mode="floor")
    column = place - row * side
    x, y = (
        boxes[:, None, axis] + (index.to(boxes.dtype) + 0.5) / side * (boxes[:, None, axis + 2] - boxes[:, None, axis])
        for axis, index in ((0, column), (1, row))
    )
    return torch.stack([x, y, score], dim=-1)
