"""The second stage: what proposals are, where exactly, and their masks or keypoints (He et al., ICCV 2017, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.detection.assign import assign, sample
from edgeseg.models.detection.boxes import Weights, at_least, decode, encode
from edgeseg.models.detection.heads import (
    BoxHead,
    BoxPredictor,
    KeypointHead,
    KeypointPredictor,
    MaskHead,
    MaskPredictor,
)
from edgeseg.models.detection.keypoints import places_of, points_of
from edgeseg.models.detection.losses import class_loss, delta_loss, keypoint_loss, mask_loss
from edgeseg.models.detection.nms import ROUNDS, suppress
from edgeseg.models.detection.pooling import Pooling, crop_masks
from edgeseg.models.targets import Target

BOX_SIDE, MAP_SIDE, MASK_SIDE, KEYPOINT_SIDE = 7, 14, 28, 56
_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)
_LEAST_SIDE = 1e-2  # px


@dataclass(frozen=True)
class Detecting:
    """How class scores become detections.

    Attributes:
        score: least score of a detection.
        candidates: the best so many of all (proposal, class) pairs are looked at. What comes of them is what all pairs would
            give, if at least ``detections`` of them are kept or there are no more above ``score``.
        nms_threshold: IoU above which a worse detection of the same class goes.
        detections: rows of the result.
        rounds: see ``suppress``.
    """

    score: float = 0.05
    candidates: int = 1000
    nms_threshold: float = 0.5
    detections: int = 100
    rounds: int | None = ROUNDS


@dataclass
class Sampled:
    """The boxes of one picture that a step learns from: objects first.

    Attributes:
        boxes: (S, 4).
        objects: (P) the number of the object that each of the first P boxes stands for.
    """

    boxes: Tensor
    objects: Tensor


@dataclass(frozen=True)
class HeadWidths:
    """Channels of the heads: fully connected, mask convolutions, keypoint convolutions."""

    box: int = 1024
    mask: int = 256
    keypoint: int = 512


@dataclass(frozen=True)
class Detections:
    """D rows, best first; those that are nothing have ``valid`` False, score 0 and an empty box."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor  # 0 .. C - 1, 0 where not valid
    valid: Tensor


@dataclass(frozen=True)
class Learning:
    """What a step of the second stage looks at: boxes a picture, the most that may be of objects, and the IoU that makes one."""

    boxes: int = 512
    share: float = 0.25
    iou: float = 0.5


@dataclass(frozen=True)
class Second:
    """The settings of the second stage."""

    widths: HeadWidths = field(default_factory=HeadWidths)
    pooling: Pooling = field(default_factory=Pooling)
    detecting: Detecting = field(default_factory=Detecting)
    learning: Learning = field(default_factory=Learning)


class RoIHeads(nn.Module):
    """Box head and, where asked for, mask or keypoint head.

    Args:
        channels: of a pyramid level.
        classes: without background.
        masks: with a mask head.
        points: keypoints of an object; 0 is without a keypoint head.
    """

    def __init__(self, channels: int, classes: int, settings: Second, masks: bool = False, points: int = 0) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.widths
        self.box_head = BoxHead(channels * BOX_SIDE**2, widths.box)
        self.box_predictor = BoxPredictor(widths.box, classes)
        self.has_masks, self.has_points = masks, points > 0
        if masks:
            self.mask_head = MaskHead(channels, widths.mask)
            self.mask_predictor = MaskPredictor(widths.mask, classes)
        if points:
            self.keypoint_head = KeypointHead(channels, widths.keypoint)
            self.keypoint_predictor = KeypointPredictor(widths.keypoint, points)

    # --- heads ---------------------------------------------------------------------------------------------------------

    def score(self, levels: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (R, 1 + C) and deltas (R, 1 + C, 4) float32 of boxes of each picture."""
        logits, deltas = self.box_predictor(self.box_head(self.settings.pooling(levels, boxes, BOX_SIDE)))
        return logits.float(), deltas.float().view(len(logits), logits.shape[1], 4)

    def mask_logits(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """(R, 1 + C, 28, 28) float32."""
        logits: Tensor = self.mask_predictor(self.mask_head(self.settings.pooling(levels, boxes, MAP_SIDE)))
        return logits.float()

    def keypoint_logits(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """(R, K, 56, 56) float32."""
        logits: Tensor = self.keypoint_predictor(self.keypoint_head(self.settings.pooling(levels, boxes, MAP_SIDE)))
        return logits.float()

    # --- evaluation ----------------------------------------------------------------------------------------------------

    def detect(self, levels: list[Tensor], boxes: Tensor, scores: Tensor, height: int, width: int) -> Detections:
        """The detections of one picture from its proposals (R, 4), those with a score (R) below 0 being none."""
        rules = self.settings.detecting
        logits, deltas = self.score(levels, [boxes])
        probabilities = logits.softmax(-1)[:, 1:]
        usable = (probabilities > rules.score) & (scores >= 0)[:, None]
        flat = torch.where(usable, probabilities, torch.full_like(probabilities, -1.0)).flatten()
        count = probabilities.shape[1]
        best, chosen = flat.topk(min(rules.candidates, len(flat)))
        row = torch.div(chosen, count, rounding_mode="floor")
        classes = chosen - row * count
        moved = decode(deltas[:, 1:].reshape(-1, 4).index_select(0, chosen), boxes.index_select(0, row), _WEIGHTS, height, width)
        valid = (best > 0) & at_least(moved, _LEAST_SIDE)
        keep = suppress(moved, valid, rules.nms_threshold, classes, rules.rounds)
        return _best(moved, torch.where(keep, best, torch.full_like(best, -1.0)), classes, rules.detections)

    def masks_of(self, levels: list[Tensor], found: Detections) -> Tensor:
        """(D, 28, 28) probability of each row's class over its box; 0 in rows that are nothing."""
        logits = self.mask_logits(levels, [found.boxes])
        rows = torch.arange(len(logits), device=logits.device) * logits.shape[1] + found.classes + 1
        own = logits.flatten(0, 1).index_select(0, rows)
        return own.sigmoid() * found.valid[:, None, None]

    def keypoints_of(self, levels: list[Tensor], found: Detections) -> Tensor:
        """(D, K, 3) x, y, score; 0 in rows that are nothing."""
        points = points_of(self.keypoint_logits(levels, [found.boxes]), found.boxes)
        return points * found.valid[:, None, None]

    # --- training ------------------------------------------------------------------------------------------------------

    def losses(self, levels: list[Tensor], proposals: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The losses of all heads; classes of ``targets`` are 0 .. C - 1."""
        sampled = [self._sample(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        logits, deltas = self.score(levels, [item.boxes for item in sampled])
        found = self._box_losses(logits, deltas, sampled, targets)
        positives = [item.boxes[: len(item.objects)] for item in sampled]
        if self.has_masks:
            truth = [crop_masks(*_objects(item, target), MASK_SIDE) for item, target in zip(sampled, targets, strict=True)]
            classes = torch.cat([_classes(item, target) for item, target in zip(sampled, targets, strict=True)])
            found["masks"] = mask_loss(self.mask_logits(levels, positives), classes + 1, torch.cat(truth))
        if self.has_points:
            maps = self.keypoint_logits(levels, positives)
            places = [_places(item, target, maps.shape[1]) for item, target in zip(sampled, targets, strict=True)]
            found["keypoints"] = keypoint_loss(maps, torch.cat(places))
        return found

    def _sample(self, proposals: Tensor, target: Target) -> Sampled:
        rules, single = self.settings.learning, ~target.crowd
        objects = target.boxes[single]
        boxes = torch.cat([proposals, objects])
        match = assign(boxes, objects, target.boxes[target.crowd], rules.iou, rules.iou, every=False)
        positives, negatives = sample(match, rules.boxes, rules.share)
        numbers = single.nonzero().flatten()
        return Sampled(boxes[torch.cat([positives, negatives])], numbers[match[positives]])

    def _box_losses(self, logits: Tensor, deltas: Tensor, sampled: list[Sampled], targets: list[Target]) -> dict[str, Tensor]:
        labels, rows, truth, start = [], [], [], 0
        for item, target in zip(sampled, targets, strict=True):
            count = len(item.objects)
            classes = _classes(item, target) + 1
            labels.append(F.pad(classes, (0, len(item.boxes) - count)))
            truth.append(encode(target.boxes[item.objects], item.boxes[:count], _WEIGHTS))
            rows.append(torch.arange(start, start + count, device=logits.device))
            start += len(item.boxes)
        label, row = torch.cat(labels), torch.cat(rows)
        own = deltas[row, label[row]]
        return {"classes": class_loss(logits, label), "boxes": delta_loss(own, torch.cat(truth), len(label))}


def _best(boxes: Tensor, scores: Tensor, classes: Tensor, count: int) -> Detections:
    missing = max(count - len(scores), 0)
    if missing:
        boxes, scores, classes = (
            F.pad(boxes, (0, 0, 0, missing)),
            F.pad(scores, (0, missing), value=-1.0),
            F.pad(classes, (0, missing)),
        )
    best, chosen = scores.topk(count)
    valid = best > 0
    boxes, classes = boxes.index_select(0, chosen), classes.index_select(0, chosen)
    return Detections(boxes * valid[:, None], best.clamp(min=0), torch.where(valid, classes, 0), valid)


def _classes(item: Sampled, target: Target) -> Tensor:
    return target.classes[item.objects]


def _objects(item: Sampled, target: Target) -> tuple[Tensor, Tensor]:
    """Masks and boxes of the sampled objects."""
    return target.masks[item.objects], item.boxes[: len(item.objects)]


def _places(item: Sampled, target: Target, points: int) -> Tensor:
    """Places (P, K) of the objects' keypoints, unlabelled where the picture has none."""
    if target.keypoints is None:
        return item.objects.new_full((len(item.objects), points), -1)
    return places_of(target.keypoints[item.objects], item.boxes[: len(item.objects)], KEYPOINT_SIDE)
