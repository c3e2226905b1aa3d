"""Detections to instances at the frame's size."""

from __future__ import annotations

import numpy as np

from edgeseg.manifest import Manifest
from edgeseg.native.scene import paste_masks
from edgeseg.postprocess.detections import Outputs, read_detections
from edgeseg.postprocess.placing import boxes_on_frame, clip_boxes, points_on_frame
from edgeseg.scene import Instances, Placement


class InstanceDecoder:
    """Outputs of kind "detections" to instances: boxes, with masks or keypoints where the task has them.

    Masks are pasted by Detectron2's rule (see ``native.scene.paste_masks``) over the box as the network gave it, so that
    clipping a box at the frame's edge does not squeeze its mask.

    Args:
        manifest: of the model; ``merge.mask`` is the probability above which a pixel belongs to a mask.
        threads: rows are split over so many threads.
    """

    def __init__(self, manifest: Manifest, threads: int = 1) -> None:
        self._manifest, self._threads = manifest, threads

    def __call__(self, outputs: Outputs, placement: Placement) -> Instances:
        """Instances in pixels of the frame, best first; without padding rows and what lies outside of the frame.

        Raises:
            BackendError: an output does not fit the manifest.
        """
        found = read_detections(outputs, self._manifest)
        placed = boxes_on_frame(found.boxes, placement)
        boxes = clip_boxes(placed, placement.frame)
        seen = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        masks = keypoints = None
        if found.masks is not None:
            threshold = self._manifest.merge.mask
            masks = paste_masks(found.masks[seen], placed[seen], placement.frame, threshold, threads=self._threads)
        if found.keypoints is not None:
            keypoints = points_on_frame(found.keypoints[seen], placement)
        return Instances(boxes[seen], found.classes[seen], found.scores[seen], masks, keypoints)
