"""torchvision's detectors without torchvision's compiled operators, to compare with: where EDGESEG_TORCHVISION names its folder."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from edgeseg.ops.pytorch.roi_align import roi_align

_kept: list[Any] = []  # a library lives as long as its object


def greedy(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy suppression in a plain loop: indices of what is kept, best first."""
    order, kept = scores.argsort(descending=True, stable=True).tolist(), []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in order:
        low = torch.maximum(boxes[index, :2], boxes[kept, :2])
        high = torch.minimum(boxes[index, 2:], boxes[kept, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        if not (shared > threshold * (areas[index] + areas[kept] - shared)).any():
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(x: Tensor, rois: Tensor, scale: float, height: int, width: int, ratio: int, aligned: bool) -> Tensor:
    samples = max(ratio, 0)
    return roi_align(rois[:, 1:], rois[:, 0].long(), [x], height, width, samples, "avg", aligned, [scale], 224.0, 0)


def detection() -> Any:
    """The module ``torchvision.models.detection``; skips the test where it is not to be had."""
    folder = os.environ.get("EDGESEG_TORCHVISION")
    if not folder:
        pytest.skip("EDGESEG_TORCHVISION does not name the folder of torchvision's Python sources")
    if "torchvision" not in sys.modules:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):  # the second is only declared, for torchvision to describe its shape
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define(
            "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width,"
            " int sampling_ratio, bool aligned) -> Tensor"
        )
        library.impl("nms", greedy, "CPU")
        library.impl("roi_align", _roi_align, "CPU")
        _kept.append(library)
        sys.path.insert(0, folder)
    import torchvision.models.detection as module

    # Its own fallback for RoIAlign, in Python, repeats the last row where its compiled one has zeros outside of the map.
    for place in ("torchvision.extension", "torchvision.ops.roi_align"):
        sys.modules[place]._has_ops = lambda: True  # type: ignore[attr-defined]
    return module
