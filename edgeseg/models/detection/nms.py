"""Exact greedy non-maximum suppression without a loop over boxes and without shapes that depend on data.

Greedy suppression keeps a box if no better box that is kept overlaps it too much. That rule, applied to all boxes at once and
again to its own result, settles on the greedy answer: after t rounds every box is right that ends no chain of more than t boxes
in which each overlaps the next. Rounds from all boxes give, in turn, too many and too few: an even number of rounds keeps all
that greedy suppression keeps, and perhaps more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.models.detection.boxes import area, shared_area

ROUNDS = 16


def suppress(boxes: Tensor, valid: Tensor, threshold: float, labels: Tensor | None = None, rounds: int | None = ROUNDS) -> Tensor:
    """(N) bool: which boxes greedy suppression keeps.

    Args:
        boxes: (N, 4), best first.
        valid: (N) bool; others are neither kept nor do they suppress.
        threshold: a box goes if its IoU with a better one that stays is above it.
        labels: (N) int64: boxes of different labels do not touch each other.
        rounds: how often the rule is applied, a fixed number of standard operators; None: until nothing changes.
    """
    shared = shared_area(boxes, boxes)
    areas = area(boxes)
    overlap = shared > threshold * (areas[:, None] + areas[None] - shared)
    if labels is not None:
        overlap = overlap & (labels[:, None] == labels[None])
    better = torch.triu(overlap.to(boxes.dtype), diagonal=1)
    free = valid.to(boxes.dtype)[None]
    keep = free
    for _ in range(len(boxes) if rounds is None else rounds):
        # 1 minus the better boxes in the way. A Gemm with this factor is no layer that calibration would make INT8.
        last, keep = keep, (torch.addmm(free, keep, better, alpha=-1) > 0).to(boxes.dtype)
        if rounds is None and torch.equal(last, keep):
            break
    return keep[0] > 0
