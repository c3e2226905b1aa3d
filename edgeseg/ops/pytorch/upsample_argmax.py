"""Bilinear upsampling and argmax for PyTorch, as one operator that the exporter can write as one node."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.ops.upsample_argmax import HUGE


@torch.library.custom_op("edgeseg::upsample_argmax", mutates_args=())
def upsample_argmax(logits: Tensor, size: Sequence[int], align_corners: bool, threshold: float) -> Tensor:
    """Labels (N, H, W) uint8 of logits (N, C, h, w): the highest class, the lowest of equal ones; C = 1 by ``threshold``.

    Labels have no gradient.

    Raises:
        ValueError: logits or a size of another rank, or more than 256 classes.
    """
    if logits.ndim != 4 or not 1 <= logits.shape[1] <= 256 or len(size) != 2:
        raise ValueError(
            f"upsample_argmax: logits {tuple(logits.shape)}, size {list(size)}; expected (N, C, h, w), C 1..256, and (H, W)"
        )
    clean = logits.float().nan_to_num(-HUGE, HUGE, -HUGE).clamp(-HUGE, HUGE)
    scores = F.interpolate(clean, list(size), mode="bilinear", align_corners=align_corners)
    labels = scores[:, 0] > threshold if logits.shape[1] == 1 else scores.argmax(dim=1)
    return labels.to(torch.uint8)


@upsample_argmax.register_fake
def _(logits: Tensor, size: Sequence[int], align_corners: bool, threshold: float) -> Tensor:
    return logits.new_empty((logits.shape[0], *size), dtype=torch.uint8)
