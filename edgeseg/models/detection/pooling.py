"""Features of boxes from a pyramid, by our RoIAlign."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseg.models.detection.fpn import STRIDES
from edgeseg.ops.pytorch.roi_align import roi_align

_LEVEL_OF_CANONICAL = 2  # P4, counted from P2 (Lin et al., CVPR 2017, equation 1: k0 = 4)


@dataclass(frozen=True)
class Pooling:
    """How the features of a box are read.

    Attributes:
        mode: "avg" or "max" (ONNX's, see ``edgeseg.ops.roi_align``).
        samples: bilinear samples a bin and axis.
        aligned: pixel centres lie at half pixels. torchvision's published weights were trained without.
        canonical: side in px of a box that belongs to P4; 224 for pictures of about 800 px.
    """

    mode: str = "avg"
    samples: int = 2
    aligned: bool = False
    canonical: float = 224.0

    def __call__(self, levels: list[Tensor], boxes: list[Tensor], side: int) -> Tensor:
        """(K, C, side, side) of boxes (K_i, 4) of each picture, read from P2 to P5."""
        pictures = [torch.full((len(item),), image, dtype=torch.int64, device=item.device) for image, item in enumerate(boxes)]
        rois, images = torch.cat(boxes), torch.cat(pictures)
        scales = [1.0 / stride for stride in STRIDES[:4]]
        shape = (side, side, self.samples, self.mode, self.aligned)
        pooled: Tensor = roi_align(rois, images, levels[:4], *shape, scales, self.canonical, _LEVEL_OF_CANONICAL)
        return pooled


def crop_masks(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(K, side, side) share of each bin of box k (K, 4) that mask k (K, H, W) covers, sampled at its pixels."""
    which = torch.arange(len(masks), device=masks.device)
    return roi_align(boxes, which, [masks[:, None].float()], side, side, 0, "avg", True, [1.0], 224.0, 0)[:, 0]
