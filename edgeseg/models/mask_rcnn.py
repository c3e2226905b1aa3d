"""Mask R-CNN (He et al., ICCV 2017) on a ResNet feature pyramid; Faster R-CNN is the same without masks, Keypoint R-CNN has
keypoints instead. Parameter names are torchvision's, whose count of classes has one more, background.

In evaluation mode a network takes one picture and has no shape that depends on it: a fixed number of proposals a level, of
candidates and of detections, suppressed by a fixed number of rounds (``edgeseg.models.detection.nms``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from edgeseg.errors import EdgesegError
from edgeseg.manifest import OutputKind, Task
from edgeseg.models.detection.detector import Detector, DetectorOptions, need_targets
from edgeseg.models.detection.fpn import single
from edgeseg.models.targets import Target


class MaskRCNN(Detector):
    """A detector with masks, keypoints or neither, as ``task`` says.

    In evaluation mode: boxes (1, D, 4), scores (1, D), classes (1, D) int64 and masks (1, D, 28, 28), the probability of the
    row's class over its box, or keypoints (1, D, K, 3) x, y, score: the centre of the place of the 56 * 56 map with the
    largest logit. Rows that are nothing have class -1, score 0 and zeros.
    """

    kind: OutputKind = "detections"

    def __init__(
        self, num_classes: int, task: Task, things: Sequence[int] | None, options: DetectorOptions, num_keypoints: int = 0
    ) -> None:
        super().__init__(num_classes, things, options, task == "instance", num_keypoints)
        self.task: Task = task

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """The losses by name in training mode, detections in evaluation mode."""
        height, width = x.shape[-2:]
        if self.training:
            return self.detection_losses(self.backbone(x), need_targets(targets), height, width)
        single(x)
        levels = self.backbone(x)
        found = self.detect(levels, height, width)
        outputs = self.outputs(found)
        if self.task == "instance":
            return *outputs, self.roi_heads.masks_of(levels, found)[None]
        if self.task == "keypoint":
            return *outputs, self.roi_heads.keypoints_of(levels, found)[None]
        return outputs


def mask_rcnn(num_classes: int, things: Sequence[int] | None = None, **options: Any) -> MaskRCNN:
    """Boxes, classes and masks; ``options`` as in ``DetectorOptions``."""
    return MaskRCNN(num_classes, "instance", things, DetectorOptions(**options))


def faster_rcnn(num_classes: int, things: Sequence[int] | None = None, **options: Any) -> MaskRCNN:
    """Boxes and classes (Ren et al., NIPS 2015; on a pyramid, Lin et al., CVPR 2017)."""
    return MaskRCNN(num_classes, "detection", things, DetectorOptions(**options))


def keypoint_rcnn(num_classes: int, num_keypoints: int = 17, things: Sequence[int] | None = None, **options: Any) -> MaskRCNN:
    """Boxes, classes and keypoints."""
    if num_keypoints < 1:
        raise EdgesegError(f"num_keypoints {num_keypoints}", "at least 1", "faster_rcnn has none")
    return MaskRCNN(num_classes, "keypoint", things, DetectorOptions(**options), num_keypoints)
