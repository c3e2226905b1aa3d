"""What networks with losses of their own learn from: one target a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Target:
    """The truth of one picture of a batch, in pixels of the network's input.

    Attributes:
        boxes: (M, 4) float32, x1, y1, x2, y2.
        classes: (M) int64.
        masks: (M, H, W) uint8, 0 or 1.
        crowd: (M) bool: regions to be ignored.
        labels: (H, W) int64 of the semantic classes, 255 ignored.
        keypoints: (M, K, 3) float32 x, y, v, where the data set has them.
        spaces: (H, W) int64 of each further label space, as ``labels``.
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor
    crowd: Tensor
    labels: Tensor
    keypoints: Tensor | None = None
    spaces: list[Tensor] = field(default_factory=list)

    def to(self, device: torch.device) -> Target:
        """The same on another device."""
        keypoints = None if self.keypoints is None else self.keypoints.to(device)
        return Target(
            self.boxes.to(device),
            self.classes.to(device),
            self.masks.to(device),
            self.crowd.to(device),
            self.labels.to(device),
            keypoints,
            [space.to(device) for space in self.spaces],
        )
