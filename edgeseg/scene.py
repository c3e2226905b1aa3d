"""What is in a picture beyond a label map: instances and panoptic segments, as truth and as prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOID = 0
"""Segment id of pixels that belong to no segment."""


@dataclass(frozen=True)
class Instances:
    """M objects of one picture; truth has no scores.

    Attributes:
        boxes: (M, 4) float32, x1, y1, x2, y2 in pixels of the picture; edges, so that a whole picture is (0, 0, W, H).
        classes: (M) int64, index in the list of classes.
        scores: (M) float32 in 0..1, or None for truth.
        masks: (M, H, W) uint8, 0 or 1, or None where only boxes are known.
        keypoints: (M, K, 3) float32, x, y in pixels and v: 0 unlabelled, 1 hidden, 2 visible (COCO); a score in predictions.
        crowd: (M) bool: a region of many objects, which is matched but never counted (COCO ``iscrowd``); None is none.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32] | None = None
    masks: NDArray[np.uint8] | None = None
    keypoints: NDArray[np.float32] | None = None
    crowd: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic picture: a thing or a whole stuff class.

    Attributes:
        id: its value in ``Panoptic.ids``, 1 or more.
        label: class index.
        score: confidence, 1 in truth.
        crowd: truth only: many things in one segment (COCO ``iscrowd``).
    """

    id: int
    label: int
    score: float = 1.0
    crowd: bool = False


@dataclass(frozen=True)
class Panoptic:
    """A partition of a picture (Kirillov et al., CVPR 2019): ids (H, W) int32, ``VOID`` where there is no segment."""

    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]


Prediction = NDArray[np.uint8] | list[NDArray[np.uint8]] | Instances | Panoptic
"""What a model's task promises of a frame: labels (H, W) uint8; one label map for each label space; instances; or segments."""


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the network's input, both in pixel edges: input = frame * scale.

    Attributes:
        frame: (H, W) of the frame.
        input: (h, w) of the input tensor.
        scale_x, scale_y: the same number where the aspect is kept; what is left of the input then is padding at the right
            and the bottom.
    """

    frame: tuple[int, int]
    input: tuple[int, int]
    scale_x: float
    scale_y: float


def mask_boxes(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The tight boxes (M, 4) float32 of masks (M, H, W): x1, y1, x2, y2 in pixel edges; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if columns.size:
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
