"""A two-stage detector on a feature pyramid, from its options; what Mask R-CNN and Panoptic FPN are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.detection.boxes import at_least
from edgeseg.models.detection.fpn import ResNetPyramid
from edgeseg.models.detection.nms import ROUNDS
from edgeseg.models.detection.pooling import Pooling
from edgeseg.models.detection.roi_heads import Detecting, Detections, HeadWidths, Learning, RoIHeads, Second
from edgeseg.models.detection.rpn import Proposing, RegionProposalNetwork
from edgeseg.models.targets import Target
from edgeseg.ops.roi_align_options import MAX_SAMPLES

_LEAST_OBJECT = 0.5  # px: thinner boxes have no finite deltas worth learning


@dataclass(frozen=True)
class DetectorOptions:
    """What a detector can be told; the defaults are the papers' and torchvision's.

    Attributes:
        backbone: resnet18, resnet34, resnet50 or resnet101.
        backbone_width, frozen_bn: see ``ResNetPyramid``.
        fpn_channels, box_channels, mask_channels, keypoint_channels: widths of the pyramid and of the heads.
        anchor_sizes: side of the anchors of P2 to P6, px.
        pre_nms, post_nms, train_pre_nms, train_post_nms: see ``Proposing``.
        rpn_samples, roi_samples: boxes a picture that a step looks at in either stage.
        score_threshold, candidates, nms_threshold, detections: see ``Detecting``.
        nms_rounds: see ``edgeseg.models.detection.nms``.
        pooling, pooling_samples, pooling_aligned, canonical_size: see ``Pooling``.
    """

    backbone: str = "resnet50"
    backbone_width: int = 64
    frozen_bn: bool = False
    fpn_channels: int = 256
    box_channels: int = 1024
    mask_channels: int = 256
    keypoint_channels: int = 512
    anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512)
    pre_nms: int = 1000
    post_nms: int = 1000
    train_pre_nms: int = 2000
    train_post_nms: int = 2000
    rpn_samples: int = 256
    roi_samples: int = 512
    score_threshold: float = 0.05
    candidates: int = 1000
    nms_threshold: float = 0.5
    detections: int = 100
    nms_rounds: int = ROUNDS
    pooling: str = "avg"
    pooling_samples: int = 2
    pooling_aligned: bool = False
    canonical_size: float = 224.0

    def __post_init__(self) -> None:
        for name in (
            *(
                "backbone_width",
                "fpn_channels",
                "box_channels",
                "mask_channels",
                "keypoint_channels",
                "pre_nms",
                "post_nms",
                "train_pre_nms",
            ),
            *("train_post_nms", "rpn_samples", "roi_samples", "candidates", "detections", "nms_rounds", "pooling_samples"),
        ):
            if not (isinstance(value := getattr(self, name), int) and value >= 1):
                raise EdgesegError(f"{name} {value!r}", "a whole number of at least 1")
        for name in ("score_threshold", "nms_threshold"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise EdgesegError(f"{name} {value!r}", "a share from 0 to below 1")
        if self.pooling not in ("avg", "max"):
            raise EdgesegError(f"pooling {self.pooling!r}", "avg or max")
        if self.pooling_samples > MAX_SAMPLES or not all(size > 0 for size in (*self.anchor_sizes, self.canonical_size)):
            raise EdgesegError("pooling_samples, anchor_sizes or canonical_size", f"1..{MAX_SAMPLES} samples, sizes above 0 px")

    def second(self) -> Second:
        """The settings of the second stage."""
        return Second(
            HeadWidths(self.box_channels, self.mask_channels, self.keypoint_channels),
            Pooling(self.pooling, self.pooling_samples, self.pooling_aligned, self.canonical_size),
            Detecting(self.score_threshold, self.candidates, self.nms_threshold, self.detections, self.nms_rounds),
            Learning(self.roi_samples),
        )


class Detector(nn.Module):
    """Backbone, proposals and heads; the base of the networks.

    Args:
        num_classes: classes of the data set.
        things: which of them are objects, by index; None: all.
        masks: with a mask head.
        points: keypoints of an object; 0: none.
    """

    own_loss = True
    things: Tensor
    place_of: Tensor

    def __init__(
        self, num_classes: int, things: Sequence[int] | None, options: DetectorOptions, masks: bool = False, points: int = 0
    ) -> None:
        super().__init__()
        chosen = list(range(num_classes)) if things is None else list(things)
        if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= index < num_classes for index in chosen):
            raise EdgesegError(f"things {chosen}", f"one or more different indices of {num_classes} classes")
        self.options = options
        place = torch.full((num_classes,), -1)
        place[chosen] = torch.arange(len(chosen))
        self.register_buffer("things", torch.tensor(chosen), persistent=False)
        self.register_buffer("place_of", place, persistent=False)
        self.backbone = ResNetPyramid(options.backbone, options.fpn_channels, options.frozen_bn, options.backbone_width)
        train = Proposing(options.train_pre_nms, options.train_post_nms, rounds=None)
        evaluation = Proposing(options.pre_nms, options.post_nms, rounds=options.nms_rounds)
        self.rpn = RegionProposalNetwork(options.fpn_channels, options.anchor_sizes, train, evaluation)
        self.roi_heads = RoIHeads(options.fpn_channels, len(chosen), options.second(), masks, points)

    def detect(self, levels: list[Tensor], height: int, width: int) -> Detections:
        """The detections of one picture; classes count things."""
        boxes, scores, _ = self.rpn(levels, height, width)
        return self.roi_heads.detect(levels, boxes[0], scores[0], height, width)

    def outputs(self, found: Detections) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (1, D, 4), scores (1, D) and classes (1, D) int64 of the data set, -1 in rows that are nothing."""
        classes = torch.where(found.valid, self.things.index_select(0, found.classes), -1)
        return found.boxes[None], found.scores[None], classes[None]

    def detection_losses(self, levels: list[Tensor], targets: list[Target], height: int, width: int) -> dict[str, Tensor]:
        """The losses of both stages by name."""
        own = [self._objects(target) for target in targets]
        boxes, scores, flat = self.rpn(levels, height, width)
        losses = self.rpn.losses(flat, own, self.options.rpn_samples, share=0.5)
        proposals = [box[score >= 0] for box, score in zip(boxes, scores, strict=True)]
        return losses | self.roi_heads.losses(levels, proposals, own)

    def _objects(self, target: Target) -> Target:
        """The target with classes counted among things; what is none, or has no size, is left out."""
        classes = self.place_of[target.classes]
        keep = (classes >= 0) & at_least(target.boxes, _LEAST_OBJECT)
        points = None if target.keypoints is None else target.keypoints[keep]
        return Target(target.boxes[keep], classes[keep], target.masks[keep], target.crowd[keep], target.labels, points)


def need_targets(targets: list[Target] | None) -> list[Target]:
    """Refuse to train without truth.

    Raises:
        EdgesegError: no targets.
    """
    if targets is None:
        raise EdgesegError("a detector in training mode without targets", "one target a picture", "call eval() to detect")
    return targets
