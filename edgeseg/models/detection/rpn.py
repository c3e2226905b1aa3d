"""Region proposal network on a pyramid (Ren et al., NIPS 2015; Lin et al., CVPR 2017, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.models.detection.anchors import RATIOS, anchor_grid, cell_anchors
from edgeseg.models.detection.assign import assign, sample
from edgeseg.models.detection.boxes import Weights, at_least, decode, encode
from edgeseg.models.detection.fpn import STRIDES
from edgeseg.models.detection.losses import delta_loss, objectness_loss
from edgeseg.models.detection.nms import ROUNDS, suppress
from edgeseg.models.targets import Target

_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
_LEAST_SIDE = 1e-3  # px


@dataclass(frozen=True)
class Proposing:
    """How anchors become proposals.

    Attributes:
        pre_nms, post_nms: how many are looked at a level, and how many are left of all levels.
        nms_threshold: IoU above which a worse proposal of the same level goes.
        rounds: see ``suppress``.
    """

    pre_nms: int = 1000
    post_nms: int = 1000
    nms_threshold: float = 0.7
    rounds: int | None = ROUNDS


class RPNHead(nn.Module):
    """Per level (N, A, h, w) objectness logits and (N, 4 A, h, w) deltas."""

    def __init__(self, width: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)))
        self.cls_logits = nn.Conv2d(width, anchors, 1)
        self.bbox_pred = nn.Conv2d(width, anchors * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, levels: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        hidden = [self.conv(level) for level in levels]
        return [(self.cls_logits(item), self.bbox_pred(item)) for item in hidden]


@dataclass(frozen=True)
class _Level:
    """One level of one batch: logits (N, n), deltas (N, n, 4), anchors (n, 4), cell by cell, anchor by anchor."""

    logits: Tensor
    deltas: Tensor
    anchors: Tensor


class RegionProposalNetwork(nn.Module):
    """Proposals from a pyramid.

    Args:
        width: channels of a level.
        sides: sides of the anchors of each level, px.
        training_, evaluation: how proposals are chosen.
    """

    def __init__(self, width: int, sides: Sequence[float], training_: Proposing, evaluation: Proposing) -> None:
        super().__init__()
        if len(sides) != len(STRIDES):
            raise EdgesegError(f"{len(sides)} anchor sizes", f"one for each of {len(STRIDES)} levels")
        self.head = RPNHead(width, len(RATIOS))
        self.cells = [cell_anchors(side) for side in sides]
        self.rules = {True: training_, False: evaluation}

    def forward(self, levels: list[Tensor], height: int, width: int) -> tuple[list[Tensor], list[Tensor], list[_Level]]:
        """Boxes (R, 4) and scores (R) a picture, best first, score -1 where there are fewer; and what they were chosen from.

        Args:
            height, width: of the input, px.
        """
        raw = [_flat(*outputs) for outputs in self.head(levels)]
        grids = [anchor_grid(level, stride, cells) for level, stride, cells in zip(levels, STRIDES, self.cells, strict=True)]
        flat = [_Level(logits, deltas, anchors) for (logits, deltas), anchors in zip(raw, grids, strict=True)]
        boxes, scores = [], []
        for image in range(levels[0].shape[0]):
            with torch.no_grad():
                found = self._propose(flat, image, height, width)
            boxes.append(found[0])
            scores.append(found[1])
        return boxes, scores, flat

    def _propose(self, levels: list[_Level], image: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        rules = self.rules[self.training]
        picked = [item.logits[image].topk(min(rules.pre_nms, len(item.anchors))) for item in levels]
        deltas = torch.cat([item.deltas[image].index_select(0, chosen) for item, (_, chosen) in zip(levels, picked, strict=True)])
        anchors = torch.cat([item.anchors.index_select(0, chosen) for item, (_, chosen) in zip(levels, picked, strict=True)])
        boxes = decode(deltas, anchors, _WEIGHTS, height, width)
        valid = at_least(boxes, _LEAST_SIDE)
        keep = _suppress(boxes, valid, [len(chosen) for _, chosen in picked], rules)
        scores = torch.cat([best for best, _ in picked]).sigmoid()
        best, chosen = torch.where(keep, scores, torch.full_like(scores, -1.0)).topk(min(rules.post_nms, len(scores)))
        return boxes.index_select(0, chosen), best

    def losses(self, levels: list[_Level], targets: list[Target], anchors: int, share: float) -> dict[str, Tensor]:
        """Objectness and box loss over ``anchors`` sampled anchors a picture, at most ``share`` of them of objects."""
        logits, deltas = torch.cat([item.logits for item in levels], 1), torch.cat([item.deltas for item in levels], 1)
        grid = torch.cat([item.anchors for item in levels])
        objectness, boxes = [], []
        for image, target in enumerate(targets):
            single = target.boxes[~target.crowd]
            match = assign(grid, single, target.boxes[target.crowd], 0.3, 0.7, every=True)
            positives, negatives = sample(match, anchors, share)
            truth = encode(single[match[positives]], grid[positives], _WEIGHTS)
            objectness.append(objectness_loss(logits[image], positives, negatives))
            boxes.append(delta_loss(deltas[image][positives], truth, len(positives) + len(negatives)))
        return {"objectness": torch.stack(objectness).mean(), "rpn_boxes": torch.stack(boxes).mean()}


def _suppress(boxes: Tensor, valid: Tensor, counts: list[int], rules: Proposing) -> Tensor:
    """(N) bool: what stays of the boxes of all levels, ``counts`` of each, best first; levels do not suppress each other."""
    if rules.rounds is None:
        parts = zip(boxes.split(counts), valid.split(counts), strict=True)
        return torch.cat([suppress(part, usable, rules.nms_threshold, rounds=None) for part, usable in parts])
    # In one go: TensorRT-RTX takes minutes over five chains of rounds beside each other, and a second over one.
    levels = torch.cat([torch.full((count,), level, device=boxes.device) for level, count in enumerate(counts)])
    return suppress(boxes, valid, rules.nms_threshold, levels, rules.rounds)


def _flat(logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """(N, A, h, w), (N, 4 A, h, w) to (N, h w A), (N, h w A, 4) float32."""
    count, anchors, height, width = logits.shape
    places = deltas.view(count, anchors, 4, height, width).permute(0, 3, 4, 1, 2).reshape(count, -1, 4)
    return logits.permute(0, 2, 3, 1).reshape(count, -1).float(), places.float()
