"""Panoptic FPN (Kirillov et al., CVPR 2019): Mask R-CNN and a semantic branch on one feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.manifest import OutputKind, Task
from edgeseg.models.blocks import resize_like
from edgeseg.models.detection.detector import Detector, DetectorOptions, need_targets
from edgeseg.models.detection.fpn import single
from edgeseg.models.targets import Target

_IGNORE = 255


class SemanticBranch(nn.Module):
    """Logits (N, classes, h, w) at stride 4 from P2 to P5 (figure 3).

    A level takes as many stages as it is octaves above stride 4, each a 3x3 convolution, group normalisation, ReLU and 2x
    bilinear upsampling; P2 takes one without upsampling. Their sum goes through a 1x1 convolution.
    """

    def __init__(self, cin: int, width: int, classes: int) -> None:
        super().__init__()
        groups = min(32, width)
        if width % groups:
            raise EdgesegError(f"semantic_channels {width}", f"a multiple of {groups}, the groups of its normalisation")
        self.levels = nn.ModuleList(
            nn.ModuleList(_stage(cin if index == 0 else width, width, groups) for index in range(max(octaves, 1)))
            for octaves in range(4)
        )
        self.classifier = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, levels: list[Tensor]) -> Tensor:
        total = self._up(levels, 0)
        for octaves in (1, 2, 3):
            total = total + self._up(levels, octaves)
        logits: Tensor = self.classifier(total)
        return logits

    def _up(self, levels: list[Tensor], octaves: int) -> Tensor:
        """What a level gives at stride 4."""
        x, stages = levels[octaves], self.levels[octaves]
        assert isinstance(stages, nn.ModuleList)
        for index, stage in enumerate(stages):
            x = stage(x)
            if octaves:
                # To the finer level's own size, which is not always twice as large.
                x = resize_like(x, levels[octaves - 1 - index])
        return x


def _stage(cin: int, width: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(cin, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.GroupNorm(groups, width), nn.ReLU(inplace=True))


class PanopticFPN(Detector):
    """Boxes (1, D, 4), scores (1, D), classes (1, D) int64 and masks (1, D, 28, 28) as Mask R-CNN's, and semantic
    (1, 1 + S, h, w): logits at stride 4 of "any thing" and of the S stuff classes in order.

    Args:
        num_classes: things and stuff.
        things: which of them are things, by index; the others are stuff.
        semantic_channels: width of the semantic branch.
        instance_weight, semantic_weight: of the losses (lambda_i and lambda_s, section 3.2).
        options: see ``DetectorOptions``.
    """

    task: Task = "panoptic"
    kind: OutputKind = "panoptic"
    channel_of: Tensor

    def __init__(
        self,
        num_classes: int,
        things: Sequence[int],
        semantic_channels: int = 128,
        instance_weight: float = 1.0,
        semantic_weight: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, things, DetectorOptions(**options), masks=True)
        stuff = [index for index in range(num_classes) if index not in set(things)]
        channel = torch.full((_IGNORE + 1,), _IGNORE)
        channel[list(things)] = 0
        channel[stuff] = torch.arange(1, len(stuff) + 1)
        self.register_buffer("channel_of", channel, persistent=False)
        self.weights = instance_weight, semantic_weight
        self.semantic = SemanticBranch(self.options.fpn_channels, semantic_channels, 1 + len(stuff))

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """The losses by name in training mode, detections and semantic logits in evaluation mode."""
        height, width = x.shape[-2:]
        if self.training:
            return self._losses(self.backbone(x), need_targets(targets), height, width)
        single(x)
        levels = self.backbone(x)
        found = self.detect(levels, height, width)
        return *self.outputs(found), self.roi_heads.masks_of(levels, found)[None], self.semantic(levels)

    def _losses(self, levels: list[Tensor], targets: list[Target], height: int, width: int) -> dict[str, Tensor]:
        instance, semantic = self.weights
        found = {name: loss * instance for name, loss in self.detection_losses(levels, targets, height, width).items()}
        labels = self.channel_of[torch.stack([target.labels for target in targets])]
        return found | {"semantic": semantic * semantic_loss(self.semantic(levels), labels)}


def semantic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of (N, C, h, w), upsampled bilinearly, over the labelled pixels of (N, H, W) int64."""
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(full, labels, ignore_index=_IGNORE, reduction="sum")
    return total / (labels != _IGNORE).sum().clamp(min=1)
