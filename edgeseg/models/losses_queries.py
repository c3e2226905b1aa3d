"""The loss of MaskFormer and Mask2Former: queries are matched to segments, then classes and masks are compared.

Cheng et al., NeurIPS 2021, section 3.2; Cheng et al., CVPR 2022, section 3.3. Masks are compared at every pixel (focal and
dice loss) or at sampled points (binary cross entropy and dice loss). Pixels of unknown truth count in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.models.matching import match
from edgeseg.models.segment_truth import SegmentTruth

Prediction = tuple[Tensor, Tensor]
"""Class logits (N, Q, C + 1), the last for "no object", and mask logits (N, Q, h, w)."""

_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0  # Lin et al., ICCV 2017, section 4
_OVERSAMPLE, _IMPORTANT = 3, 0.75  # PointRend (Kirillov et al., CVPR 2020), section 3.1


def focal_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss of each logit if its truth is 1, and if it is 0."""
    probability = logits.sigmoid()
    positive = _FOCAL_ALPHA * (1 - probability) ** _FOCAL_GAMMA * F.softplus(-logits)
    negative = (1 - _FOCAL_ALPHA) * probability**_FOCAL_GAMMA * F.softplus(logits)
    return positive, negative


def cross_entropy_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The binary cross entropy of each logit if its truth is 1, and if it is 0."""
    return F.softplus(-logits), F.softplus(logits)


def mean_loss(terms: tuple[Tensor, Tensor], truth: Tensor, weight: Tensor) -> Tensor:
    """(M): the mean of the terms over the P pixels of each mask.

    Args:
        terms: each (M, P), see ``focal_terms``.
        truth: (M, P), 0..1.
        weight: (M, P), 0 for pixels that do not count.
    """
    positive, negative = terms
    return ((positive * truth + negative * (1 - truth)) * weight).sum(1) / weight.sum(1).clamp(min=1)


def dice_loss(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """(M): 1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1) over the pixels that count; shapes as for ``mean_loss``."""
    probability, truth = logits.sigmoid() * weight, truth * weight
    return 1 - (2 * (probability * truth).sum(1) + 1) / (probability.sum(1) + truth.sum(1) + 1)


def pairwise_mean(terms: tuple[Tensor, Tensor], truth: Tensor, weight: Tensor) -> Tensor:
    """(Q, T): ``mean_loss`` of every query, (Q, P) terms, against every segment, (T, P), with one weight (P) for all."""
    positive, negative = terms
    truth, rest = truth * weight, (1 - truth) * weight
    return (positive @ truth.T + negative @ rest.T) / weight.sum().clamp(min=1)


def pairwise_dice(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """(Q, T): ``dice_loss`` of every query against every segment."""
    probability, truth = logits.sigmoid() * weight, truth * weight
    return 1 - (2 * probability @ truth.T + 1) / (probability.sum(1)[:, None] + truth.sum(1)[None] + 1)


class MaskComparison(Protocol):
    """How masks are compared: for matching, and for learning."""

    def cost(self, logits: Tensor, truth: SegmentTruth) -> tuple[Tensor, Tensor]:
        """Mask and dice cost (Q, T) of logits (Q, h, w)."""

    def loss(self, logits: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and dice loss (M) of logits (M, h, w) for truth (M, H, W); valid is (M, H, W) too."""


class DenseComparison:
    """At every pixel, focal and dice loss; matching at the predictions' resolution, as in MaskFormer."""

    def cost(self, logits: Tensor, truth: SegmentTruth) -> tuple[Tensor, Tensor]:
        size = (logits.shape[1], logits.shape[2])
        masks = F.interpolate(truth.masks[None], size=size, mode="nearest-exact")[0].flatten(1)
        weight = F.interpolate(truth.valid[None, None], size=size, mode="nearest-exact").flatten()
        flat = logits.flatten(1)
        return pairwise_mean(focal_terms(flat), masks, weight), pairwise_dice(flat, masks, weight)

    def loss(self, logits: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        size = (truth.shape[1], truth.shape[2])
        flat = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].flatten(1)
        truth, weight = truth.flatten(1), valid.flatten(1)
        return mean_loss(focal_terms(flat), truth, weight), dice_loss(flat, truth, weight)


class PointComparison:
    """At ``points`` random points, cross entropy and dice loss (Mask2Former, section 3.3).

    Matching takes the same points for all; the loss takes three quarters of them where a mask is least certain.
    """

    def __init__(self, points: int) -> None:
        self.points = points

    def cost(self, logits: Tensor, truth: SegmentTruth) -> tuple[Tensor, Tensor]:
        at = torch.rand(1, self.points, 2, device=logits.device)
        flat, masks = (sample_points(planes[None], at)[0] for planes in (logits, truth.masks))
        weight = sample_points(truth.valid[None, None], at, "nearest")[0, 0]
        return pairwise_mean(cross_entropy_terms(flat), masks, weight), pairwise_dice(flat, masks, weight)

    def loss(self, logits: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        at = uncertain_points(logits.detach(), self.points)
        flat, masks = (sample_points(planes[:, None], at)[:, 0] for planes in (logits, truth))
        weight = sample_points(valid[:, None], at, "nearest")[:, 0]
        return mean_loss(cross_entropy_terms(flat), masks, weight), dice_loss(flat, masks, weight)


def sample_points(planes: Tensor, at: Tensor, mode: str = "bilinear") -> Tensor:
    """(M, K, P): values of planes (M, K, H, W) at points (M, P, 2) x, y in 0..1 of the picture; zero beyond the edge."""
    return F.grid_sample(planes, 2 * at[:, :, None] - 1, mode=mode, align_corners=False)[..., 0]


def uncertain_points(logits: Tensor, points: int) -> Tensor:
    """(M, points, 2) in 0..1: most where logits (M, h, w) are nearest to 0 among three times as many, the rest anywhere."""
    count = logits.shape[0]
    drawn = torch.rand(count, points * _OVERSAMPLE, 2, device=logits.device)
    chosen = int(points * _IMPORTANT)
    certainty = sample_points(logits[:, None], drawn)[:, 0].abs()
    order = certainty.topk(chosen, dim=1, largest=False).indices
    important = drawn.gather(1, order[..., None].expand(-1, -1, 2))
    return torch.cat([important, torch.rand(count, points - chosen, 2, device=logits.device)], dim=1)


@dataclass(frozen=True)
class QueryLoss:
    """The loss of a set of queries.

    Attributes:
        masks: how masks are compared.
        class_weight, mask_weight, dice_weight: of the three losses, and of the costs of matching but for the class.
        class_cost: weight of the class's probability in matching.
        no_object: weight of "no object" in the cross entropy over classes.
    """

    masks: MaskComparison
    class_weight: float
    mask_weight: float
    dice_weight: float
    class_cost: float
    no_object: float = 0.1

    def __call__(self, predictions: Sequence[Prediction], truths: Sequence[SegmentTruth]) -> dict[str, Tensor]:
        """The weighted losses of the last prediction, and under "auxiliary" the sum of all that were made before it.

        Segments are counted over this process's batch: each loss is a mean over its segments.
        """
        device = predictions[0][0].device
        with torch.autocast(device.type, enabled=False):
            *earlier, last = [self._one((classes.float(), masks.float()), truths) for classes, masks in predictions]
        if earlier:
            last["auxiliary"] = torch.stack([torch.stack(list(item.values())).sum() for item in earlier]).sum()
        return last

    def _one(self, prediction: Prediction, truths: Sequence[SegmentTruth]) -> dict[str, Tensor]:
        classes, masks = prediction
        pairs = [self._match(classes[item], masks[item], truth) for item, truth in enumerate(truths)]
        mask, dice = self._mask_losses(masks, truths, pairs)
        return {
            "class": self.class_weight * self._class_loss(classes, truths, pairs),
            "mask": self.mask_weight * mask,
            "dice": self.dice_weight * dice,
        }

    @torch.no_grad()
    def _match(self, classes: Tensor, masks: Tensor, truth: SegmentTruth) -> tuple[Tensor, Tensor]:
        if len(truth.classes) == 0:
            return truth.classes, truth.classes
        probability = classes.softmax(-1)[:, truth.classes]
        mask, dice = self.masks.cost(masks, truth)
        return match(self.mask_weight * mask + self.dice_weight * dice - self.class_cost * probability)

    def _class_loss(self, classes: Tensor, truths: Sequence[SegmentTruth], pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        nothing = classes.shape[2] - 1
        wanted = torch.full(classes.shape[:2], nothing, dtype=torch.int64, device=classes.device)
        for item, (truth, (queries, segments)) in enumerate(zip(truths, pairs, strict=True)):
            wanted[item, queries] = truth.classes[segments]
        weight = classes.new_ones(nothing + 1)
        weight[nothing] = self.no_object
        return F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), weight)

    def _mask_losses(
        self, masks: Tensor, truths: Sequence[SegmentTruth], pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        logits = torch.cat([masks[item, queries] for item, (queries, _) in enumerate(pairs)])
        if len(logits) == 0:
            nothing = masks.sum() * 0
            return nothing, nothing
        matched = list(zip(truths, pairs, strict=True))
        wanted = torch.cat([truth.masks[segments] for truth, (_, segments) in matched])
        valid = torch.cat([truth.valid.expand(len(segments), -1, -1) for truth, (_, segments) in matched])
        mask, dice = self.masks.loss(logits, wanted, valid)
        return mask.mean(), dice.mean()
