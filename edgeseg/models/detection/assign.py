"""Which box learns which object, and which boxes a step looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.models.detection.boxes import covered, iou

IGNORED, NOTHING = -2, -1
"""Instead of an object's number: the box takes no part; the box is background."""

_CROWD_SHARE = 0.5  # of a box that lies in a crowd region: neither an object nor background


def assign(boxes: Tensor, objects: Tensor, crowds: Tensor, low: float, high: float, every: bool) -> Tensor:
    """(N) int64: the number of the object that each box (N, 4) stands for, ``NOTHING`` or ``IGNORED``.

    Args:
        objects, crowds: (M, 4) and (B, 4) boxes of single objects and of crowd regions.
        low, high: a box is an object's at IoU >= high, background below low, ignored between.
        every: an object also gets the boxes that overlap it most, however little (Ren et al., NIPS 2015, section 3.1.2).
    """
    match = torch.full((len(boxes),), NOTHING, dtype=torch.int64, device=boxes.device)
    if len(objects) and len(boxes):
        overlap = iou(objects, boxes)
        best, match = overlap.max(0)
        found = match.clone()
        match = torch.where(best < high, torch.where(best < low, NOTHING, IGNORED), match)
        if every:
            most = overlap.amax(1, keepdim=True)
            forced = ((overlap == most) & (most > 0)).any(0)
            match = torch.where(forced, found, match)
    return torch.where((match == NOTHING) & (covered(boxes, crowds) > _CROWD_SHARE), IGNORED, match)


def sample(match: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Indices of at most ``count`` boxes drawn by torch's generator: those of objects, at most ``share`` of them, and others."""
    objects, others = (match >= 0).nonzero().flatten(), (match == NOTHING).nonzero().flatten()
    wanted = min(len(objects), int(count * share))
    return _draw(objects, wanted), _draw(others, min(len(others), count - wanted))


def _draw(indices: Tensor, count: int) -> Tensor:
    # Drawn on the CPU, so that a seed means the same boxes on any device.
    return indices[torch.randperm(len(indices))[:count].to(indices.device)]
