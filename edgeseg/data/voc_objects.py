"""What VOC 2012 and the Semantic Boundaries Dataset share: the classes, and objects from maps of object numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.pairs import bit_palette
from edgeseg.data.problems import Problems
from edgeseg.manifest import ClassInfo
from edgeseg.scene import Instances, mask_boxes

_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_VOID, _BACKGROUND = 255, 0

CLASSES = tuple(
    ClassInfo(name=name, colour=colour, thing=name != "background")
    for name, colour in zip(_NAMES, bit_palette(len(_NAMES)), strict=True)
)


def objects_from_maps(
    objects: NDArray[np.uint8], labels: NDArray[np.uint8], path: Path, problems: Problems, void: int = _VOID
) -> Instances:
    """The objects of a map of object numbers; each has the class that most of its pixels have.

    Args:
        objects: (H, W) uint8, 0 for none, 255 for void.
        labels: (H, W) uint8 class indices, 0 for background.
    """
    masks, classes = [], []
    for number in np.unique(objects):
        if number in (0, void):
            continue
        mask = objects == number
        found = labels[mask]
        found = found[(found != _BACKGROUND) & (found != _VOID)]
        if not found.size:
            problems.add("object without a pixel of a class, left out", f"object {number} of {path.name}")
            continue
        masks.append(mask.view(np.uint8))
        classes.append(int(np.bincount(found).argmax()))
    stacked = np.stack(masks) if masks else np.zeros((0, *objects.shape), np.uint8)
    return Instances(mask_boxes(stacked), np.array(classes, np.int64), masks=stacked, crowd=np.zeros(len(stacked), bool))
