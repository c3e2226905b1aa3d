"""Bilinear resizing in float64 numpy: half-pixel centres or aligned corners, edges replicated, no antialiasing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def taps(size_in: int, size_out: int, align_corners: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64], Doubles]:
    """Lower index, upper index and the upper one's weight for each output of one axis; each (size_out,)."""
    places = np.arange(size_out)
    step, shift = ((size_in - 1) / max(size_out - 1, 1), 0.0) if align_corners else (size_in / size_out, 0.5)
    source = np.clip((places + shift) * step - shift, 0, size_in - 1)
    low = np.floor(source).astype(np.int64)
    return low, np.minimum(low + 1, size_in - 1), source - low


def resize(planes: Doubles, size: tuple[int, int], align_corners: bool = False) -> Doubles:
    """(..., h, w) to (..., *size)."""
    top, bottom, fy = taps(planes.shape[-2], size[0], align_corners)
    left, right, fx = taps(planes.shape[-1], size[1], align_corners)
    rows = planes[..., top, :] * (1 - fy)[:, None] + planes[..., bottom, :] * fy[:, None]
    return np.asarray(rows[..., left] * (1 - fx) + rows[..., right] * fx)
