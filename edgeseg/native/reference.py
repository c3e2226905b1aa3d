"""Plain numpy versions of the kernels in float64: what the C++ is tested against, and the definition of what it computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HUGE = 1e30  # logits are clamped to +-HUGE, and NaN counts as -HUGE

Labels = NDArray[np.uint8]
Doubles = NDArray[np.float64]


def axis(size_in: int, size_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Doubles]:
    """Half-pixel bilinear taps of one axis: lower index, upper index, weight of the upper one; each (size_out,)."""
    source = np.clip((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0, size_in - 1)
    low = np.floor(source).astype(np.int64)
    return low, np.minimum(low + 1, size_in - 1), source - low


def resize_bilinear(planes: Doubles, size: tuple[int, int]) -> Doubles:
    """(..., h, w) to (..., H, W), half-pixel centres, edges replicated, no antialiasing (cv2.INTER_LINEAR)."""
    top, bottom, fy = axis(planes.shape[-2], size[0])
    left, right, fx = axis(planes.shape[-1], size[1])
    rows = planes[..., top, :] * (1 - fy)[:, None] + planes[..., bottom, :] * fy[:, None]
    return np.asarray(rows[..., left] * (1 - fx) + rows[..., right] * fx)


def preprocess(
    frame: NDArray[np.uint8],
    channels: int,
    size: tuple[int, int],
    *,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
    swap_rb: bool,
) -> Doubles:
    """(h, w, 3) uint8 BGR to (1, channels, H, W)."""
    planes = resize_bilinear(frame.astype(np.float64).transpose(2, 0, 1), size)
    if channels == 1:
        planes = (0.114 * planes[0] + 0.587 * planes[1] + 0.299 * planes[2])[None]
    elif swap_rb:
        planes = planes[::-1]
    offset, spread = (np.asarray(values, np.float64)[:, None, None] for values in (mean, std))
    return ((planes * scale - offset) / spread)[None]


def upsample_logits(logits: NDArray[np.float32], size: tuple[int, int]) -> Doubles:
    """(C, h, w) to (C, H, W), NaN as -HUGE, infinities clamped."""
    clean = np.clip(np.where(np.isnan(logits), -HUGE, logits.astype(np.float64)), -HUGE, HUGE)
    return resize_bilinear(clean, size)


def upsample_argmax(logits: NDArray[np.float32], size: tuple[int, int]) -> Labels:
    """(C, h, w) to (H, W); ties go to the lowest class."""
    return upsample_logits(logits, size).argmax(axis=0).astype(np.uint8)


def upsample_threshold(logits: NDArray[np.float32], size: tuple[int, int], threshold: float) -> Labels:
    """(1, h, w) to (H, W): 1 above the threshold."""
    return (upsample_logits(logits, size)[0] > threshold).astype(np.uint8)


def upsample_nearest(labels: NDArray[np.generic], size: tuple[int, int]) -> Labels:
    """(h, w) to (H, W): the label whose pixel holds the centre of the output pixel; outside 0..255 becomes 255."""
    rows, columns = ((2 * np.arange(n_out) + 1) * n_in // (2 * n_out) for n_in, n_out in zip(labels.shape, size, strict=True))
    picked = np.asarray(labels).astype(np.int64)[rows[:, None], columns[None, :]]
    return np.where((picked < 0) | (picked > 255), 255, picked).astype(np.uint8)


def overlay(frame: NDArray[np.uint8], labels: Labels, palette_bgr: NDArray[np.uint8], alpha: float) -> NDArray[np.uint8]:
    """(H, W, 3): frame and colour blended in 1/256 steps; label 255 keeps the frame."""
    weight = int(np.floor(alpha * 256 + 0.5))
    blended = (frame.astype(np.int64) * (256 - weight) + palette_bgr.astype(np.int64)[labels] * weight + 128) >> 8
    return np.where((labels == 255)[..., None], frame, blended).astype(np.uint8)
