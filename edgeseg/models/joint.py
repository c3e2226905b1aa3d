"""FCN that labels each pixel in several ways at once, such as semantics and geometry (Long et al., CVPR 2015, SIFT Flow).

The label spaces share everything but the scoring layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.models.fcn import FCN
from edgeseg.models.targets import Target

_IGNORE = 255


class JointFCN(FCN):
    """Logits (N, K + the sum of ``extra_classes``, H, W): those of the classes, then of each further label space in order.

    Args:
        num_classes: K.
        extra_classes: number of classes of each further label space.

    Other options are those of ``FCN``. In training it takes targets and returns one cross entropy a space: "labels",
    "space_1", ...; spaces that a target lacks, and pixels without a label, do not count.
    """

    own_loss = True

    def __init__(
        self,
        num_classes: int,
        extra_classes: Sequence[int] = (),
        stride: int = 8,
        backbone: str = "vgg16",
        width: float = 1.0,
        fc_channels: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        sizes = [num_classes, *extra_classes]
        super().__init__(sum(sizes), stride, backbone, width, fc_channels, dropout)
        self.sizes = sizes

    def forward(self, x: Tensor, targets: list[Target] | None = None) -> Tensor | dict[str, Tensor]:  # type: ignore[override]
        logits = super().forward(x)
        if targets is None:
            return logits
        names = ["labels", *(f"space_{number}" for number in range(1, len(self.sizes)))]
        parts = logits.float().split(self.sizes, dim=1)
        truths = [torch.stack([target.labels for target in targets])]
        truths += [torch.stack([target.spaces[space] for target in targets]) for space in range(len(targets[0].spaces))]
        return {name: masked_cross_entropy(part, truth) for name, part, truth in zip(names, parts, truths, strict=False)}


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits (N, C, H, W) over the pixels of labels (N, H, W) that are not 255; 0 without any."""
    total = F.cross_entropy(logits, labels, ignore_index=_IGNORE, reduction="sum")
    return total / (labels != _IGNORE).sum().clamp(min=1)
