"""Samples as the targets that networks with losses of their own learn from."""

from __future__ import annotations

import numpy as np
import torch

from edgeseg.data.base import Sample
from edgeseg.models.targets import Target


def make_target(sample: Sample) -> Target:
    """The truth of an augmented sample; one without instances has none, which is a picture of stuff alone."""
    height, width = sample.labels.shape
    found = sample.instances
    labels = torch.from_numpy(sample.labels.astype(np.int64))
    spaces = [torch.from_numpy(space.astype(np.int64)) for space in sample.spaces]
    if found is None:
        empty = torch.zeros((0, height, width), dtype=torch.uint8)
        return Target(
            torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), empty, torch.zeros(0, dtype=torch.bool), labels, spaces=spaces
        )
    count = len(found)
    masks = found.masks if found.masks is not None else np.zeros((count, height, width), np.uint8)
    crowd = found.crowd if found.crowd is not None else np.zeros(count, bool)
    return Target(
        torch.from_numpy(found.boxes.astype(np.float32)),
        torch.from_numpy(found.classes.astype(np.int64)),
        torch.from_numpy(np.ascontiguousarray(masks)),
        torch.from_numpy(crowd),
        labels,
        torch.from_numpy(found.keypoints) if found.keypoints is not None else None,
        spaces,
    )
