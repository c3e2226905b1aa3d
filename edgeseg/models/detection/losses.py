"""Losses of two-stage detectors; each is 0, with a gradient of 0, where there is nothing to learn from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 1 / 9
"""Where the smooth L1 loss of box deltas turns from square to straight."""


def objectness_loss(logits: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean binary cross entropy of the sampled anchors of ``logits`` (N)."""
    chosen = torch.cat([positives, negatives])
    truth = torch.zeros_like(logits).index_fill(0, positives, 1.0)[chosen]
    return F.binary_cross_entropy_with_logits(logits[chosen], truth, reduction="sum") / max(len(chosen), 1)


def delta_loss(deltas: Tensor, truth: Tensor, count: int) -> Tensor:
    """Smooth L1 (Girshick, ICCV 2015, equation 3) of deltas (P, 4) of objects, over ``count`` sampled boxes."""
    return F.smooth_l1_loss(deltas, truth, beta=BETA, reduction="sum") / max(count, 1)


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross entropy of (N, 1 + C) over background and classes."""
    return F.cross_entropy(logits, classes, reduction="sum") / max(len(classes), 1)


def mask_loss(logits: Tensor, classes: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross entropy of (P, C', m, m) against (P, m, m) in 0..1, on the true class alone (He et al., section 3)."""
    if not len(classes):
        return logits.sum() * 0
    own = logits[torch.arange(len(classes), device=logits.device), classes]
    return F.binary_cross_entropy_with_logits(own, truth)


def keypoint_loss(logits: Tensor, places: Tensor) -> Tensor:
    """Mean cross entropy over the m * m places of a one-hot map (He et al., section 5).

    Args:
        logits: (P, K, m, m).
        places: (P, K) int64, row * m + column, or -1 where the point is not labelled or not in the box.
    """
    known = places >= 0
    if not known.any():
        return logits.sum() * 0
    return F.cross_entropy(logits.flatten(2)[known], places[known])
