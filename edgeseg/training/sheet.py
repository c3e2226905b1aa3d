"""Pictures of what a network in training predicts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.base import Sample
from edgeseg.manifest import Manifest
from edgeseg.postprocess import palette_bgr
from edgeseg.postprocess.draw import draw_scene
from edgeseg.scene import Instances, Panoptic, Prediction

Picture = NDArray[np.uint8]


def prediction_sheet(rows: Sequence[tuple[Sample, Prediction]], manifest: Manifest) -> Picture:
    """Rows of frame, truth and prediction, all at the first frame's size; (H, W, 3) uint8 BGR."""
    height, width = rows[0][0].labels.shape
    drawn = []
    for sample, prediction in rows:
        frame = np.ascontiguousarray(sample.image[..., :3])
        panels = [frame, draw(frame, truth_of(sample, prediction), manifest), draw(frame, prediction, manifest)]
        drawn.append(np.hstack([cv2.resize(panel, (width, height), interpolation=cv2.INTER_NEAREST) for panel in panels]))
    return np.asarray(np.vstack(drawn), np.uint8)


def truth_of(sample: Sample, prediction: Prediction) -> Prediction:
    """The sample's truth in the form of the prediction."""
    if isinstance(prediction, Instances) and sample.instances is not None:
        return sample.instances
    if isinstance(prediction, Panoptic) and sample.panoptic is not None:
        return sample.panoptic
    return sample.labels


def draw(frame: Picture, prediction: Prediction, manifest: Manifest) -> Picture:
    """Label maps in the classes' colours; instances and segments over the frame."""
    if isinstance(prediction, Instances | Panoptic):
        return draw_scene(frame, prediction, manifest.classes)
    labels = prediction[0] if isinstance(prediction, list) else prediction
    return np.asarray(palette_bgr(manifest.classes)[labels], np.uint8)
