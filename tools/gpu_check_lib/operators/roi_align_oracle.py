"""RoIAlign in float64 with torch, box by box, written from the paper and from what roi_align.h and its core promise.

Sample positions are part of the promise: float32, one rounding an operation. Values are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REACH = np.float32(512)  # boxes are cut this many pixels outside their map


@dataclass(frozen=True)
class Settings:
    size: tuple[int, int]
    sampling_ratio: int
    maximum: bool
    aligned: bool
    scales: list[float]
    canonical_size: float
    canonical_level: int


@dataclass(frozen=True)
class Samples:
    """Sample positions of one axis, (bins, count) flattened: both neighbours, their weights, and whether the map is there."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float64]
    inside: NDArray[np.bool_]


def roi_align(features: list[Tensor], rois: NDArray[np.float32], images: NDArray[np.integer], settings: Settings) -> Tensor:
    """(N, C, H_l, W_l) of each level, (K, 4), (K,) to (K, C, oh, ow) float64; int8 features give values before rounding."""
    out = torch.zeros((len(rois), features[0].shape[1], *settings.size), dtype=torch.float64, device=features[0].device)
    levels = levels_of(rois, settings, len(features))
    for k, (roi, image, level) in enumerate(zip(rois, images, levels, strict=True)):
        if np.isfinite(roi).all() and 0 <= image < features[0].shape[0]:
            box = _one(features[level][int(image)].double(), roi, np.float32(settings.scales[level]), settings)
            if box is not None:
                out[k] = box
    return out


def levels_of(rois: NDArray[np.float32], settings: Settings, count: int) -> NDArray[np.int64]:
    """FPN, equation 1: the finest level for boxes without an area."""
    with np.errstate(over="ignore", invalid="ignore"):
        area = (rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])
        positive = np.where(area > 0, area, 1).astype(np.float64)
        found = np.floor(settings.canonical_level + np.log2(np.sqrt(positive) / settings.canonical_size) + 1e-6)
    return np.where(area > 0, np.clip(found, 0, count - 1), 0).astype(np.int64)


def _one(plane: Tensor, roi: NDArray[np.float32], scale: np.float32, settings: Settings) -> Tensor | None:
    """(C, H, W) to (C, oh, ow); None where the box has no samples."""
    rows = _axis(roi[1], roi[3], scale, plane.shape[1], settings.size[0], settings)
    columns = _axis(roi[0], roi[2], scale, plane.shape[2], settings.size[1], settings)
    if rows is None or columns is None:
        return None
    inside = torch.from_numpy(rows.inside[:, None] & columns.inside).to(plane.device)
    corners = _corners(plane, rows, columns)
    # ONNX's maximum is that of the four weighted neighbours of a sample, not of their sum.
    sampled = torch.stack(corners).amax(0) if settings.maximum else sum(corners[1:], corners[0])
    sampled = torch.where(inside, sampled, 0.0)
    bins = sampled.reshape(len(plane), settings.size[0], -1, settings.size[1], len(columns.low) // settings.size[1])
    return bins.amax((2, 4)) if settings.maximum else bins.mean((2, 4))


def _axis(low: np.float32, high: np.float32, scale: np.float32, size: int, bins: int, settings: Settings) -> Samples | None:
    one, offset, far = np.float32(1), np.float32(0.5 if settings.aligned else 0), np.float32(size) + REACH
    with np.errstate(over="ignore"):
        start = np.clip(low * scale, -REACH, far) - offset
        extent = np.clip(high * scale, -REACH, far) - offset - start
    if not settings.aligned:
        extent = max(extent, one)
    bin_size = extent / np.float32(bins)
    count = settings.sampling_ratio or int(np.ceil(bin_size))
    if count < 1:
        return None
    inner = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * bin_size / np.float32(count)
    at = ((start + np.arange(bins, dtype=np.float32) * bin_size)[:, None] + inner).reshape(-1)
    inside = (at >= -1) & (at <= size)
    clipped = np.clip(at, 0, size - 1)
    below = np.floor(clipped).astype(np.int64)
    return Samples(below, np.minimum(below + 1, size - 1), (clipped - below.astype(np.float32)).astype(np.float64), inside)


def _corners(plane: Tensor, rows: Samples, columns: Samples) -> list[Tensor]:
    """The four neighbours of every sample times their weights, each (C, rows, columns)."""
    at = plane.device
    down, across = torch.from_numpy(rows.share).to(at)[:, None], torch.from_numpy(columns.share).to(at)
    corners = []
    for row, row_weight in ((rows.low, 1 - down), (rows.high, down)):
        line = plane[:, torch.from_numpy(row).to(at)]
        for column, column_weight in ((columns.low, 1 - across), (columns.high, across)):
            corners.append(line[..., torch.from_numpy(column).to(at)] * (row_weight * column_weight))
    return corners
