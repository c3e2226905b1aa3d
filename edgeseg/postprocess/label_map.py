"""Instances and segments as a plain label map, for viewers that know no more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.scene import Instances, Panoptic

IGNORE = 255


def label_map(scene: Instances | Panoptic, size: tuple[int, int], score: float = 0.5) -> NDArray[np.uint8]:
    """The class of each pixel, (H, W) uint8, 255 where there is none.

    Args:
        scene: of instances, better ones cover others, and those without masks fill their boxes.
        size: (H, W) of the picture.
        score: instances below it are left out.
    """
    if isinstance(scene, Panoptic):
        return _of_segments(scene)
    labels = np.full(size, IGNORE, np.uint8)
    scores = np.ones(len(scene), np.float32) if scene.scores is None else scene.scores
    for index in np.argsort(scores, kind="stable").tolist():
        if scores[index] >= score:
            rows, columns = _window(scene.boxes[index], size)
            inside = True if scene.masks is None else scene.masks[index, rows, columns] > 0
            np.copyto(labels[rows, columns], np.uint8(scene.classes[index]), where=inside)
    return labels


def _of_segments(scene: Panoptic) -> NDArray[np.uint8]:
    known = np.array(sorted((segment.id, segment.label) for segment in scene.segments), np.int64).reshape(-1, 2)
    ids, classes = np.append(known[:, 0], np.iinfo(np.int64).max), np.append(known[:, 1], IGNORE)
    place = np.searchsorted(ids, scene.ids)
    return np.where(ids[place] == scene.ids, classes[place], IGNORE).astype(np.uint8)


def _window(box: NDArray[np.float32], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of whole pixels that a box touches."""
    x1, y1 = np.floor(box[:2]).astype(int).clip(0)
    x2, y2 = np.ceil(box[2:]).astype(int).clip(0)
    return slice(int(y1), min(int(y2), size[0])), slice(int(x1), min(int(x2), size[1]))
