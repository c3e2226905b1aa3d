"""What a set of queries should find in a picture: a class and a mask for each segment, by task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseg.models.targets import Target

IGNORE = 255


@dataclass(frozen=True)
class SegmentTruth:
    """T segments of a picture.

    Attributes:
        classes: (T) int64.
        masks: (T, H, W) float32, 0 or 1.
        valid: (H, W) float32, 0 where nothing is known: ignored labels and crowds.
    """

    classes: Tensor
    masks: Tensor
    valid: Tensor


def segment_truth(target: Target, task: str, things: Collection[int]) -> SegmentTruth:
    """The segments of ``target``.

    Args:
        task: "semantic": one segment for each class in ``labels``; "instance": one for each object that is no crowd;
            "panoptic": the objects of thing classes, and one segment for each other class in ``labels``.
        things: the thing classes of a panoptic task.
    """
    if task == "semantic":
        classes, masks = _of_labels(target.labels, ())
        return _known_where_covered(classes, masks)
    kept = ~target.crowd & (target.masks > 0).flatten(1).any(1)
    if task == "instance":
        classes, masks = target.classes[kept], target.masks[kept] > 0
        crowd = (target.masks[target.crowd] > 0).any(0)
        return SegmentTruth(classes, masks.float(), (~crowd | masks.any(0)).float())
    thing = torch.tensor(sorted(things), dtype=torch.int64, device=target.classes.device)
    kept = kept & torch.isin(target.classes, thing)
    classes, masks = _of_labels(target.labels, things)
    return _known_where_covered(torch.cat([target.classes[kept], classes]), torch.cat([target.masks[kept] > 0, masks]))


def _of_labels(labels: Tensor, without: Collection[int]) -> tuple[Tensor, Tensor]:
    found = [label for label in labels.unique().tolist() if label != IGNORE and label not in without]
    classes = torch.tensor(found, dtype=torch.int64, device=labels.device)
    return classes, labels[None] == classes[:, None, None]


def _known_where_covered(classes: Tensor, masks: Tensor) -> SegmentTruth:
    return SegmentTruth(classes, masks.float(), masks.any(0).float())
