"""Figures of merit: one file a kind of task; ``score`` chooses by the manifest."""

from __future__ import annotations

from edgeseg.manifest import Manifest

FIGURES: dict[str, tuple[str, ...]] = {
    "semantic": ("mean_iou", "pixel_accuracy", "mean_accuracy", "fw_iou"),
    "detection": ("box_ap", "box_ap50", "box_ap75"),
    "instance": ("mask_ap", "mask_ap50", "mask_ap75", "box_ap", "box_ap50", "box_ap75"),
    "keypoint": ("keypoint_ap", "keypoint_ap50", "keypoint_ap75", "box_ap", "box_ap50", "box_ap75"),
    "panoptic": ("pq", "sq", "rq", "pq_things", "pq_stuff"),
}
"""What is told of each task; the first is what models are chosen by."""
TITLES = {
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fw_iou": "frequency-weighted IoU",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "box_ap75": "box AP75",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
    "mask_ap75": "mask AP75",
    "keypoint_ap": "keypoint AP",
    "keypoint_ap50": "keypoint AP50",
    "keypoint_ap75": "keypoint AP75",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "pq_things": "PQ things",
    "pq_stuff": "PQ stuff",
}
"""Names for people."""


def headline(manifest: Manifest) -> str:
    """The name of the figure that a model of this task is judged by."""
    return FIGURES[manifest.task][0]
