"""C++ kernels around the network: what a frame passes before inference and what the logits pass after it.

All of them release the GIL, take ``threads`` (1 by default) and raise ``ValueError`` on a wrong shape or dtype.
Plain numpy versions: ``edgeseg.native.reference``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.native import _kernels

Labels = NDArray[np.uint8]
Frame = NDArray[np.uint8]
Array = NDArray[Any]


def _contiguous(array: Array) -> Array:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _packed(frame: Frame) -> Frame:
    # Any row stride is fine (a crop, a flip, a padded capture buffer); pixels must lie side by side.
    packed = frame.ndim != 3 or frame.strides[1:] == (3 * frame.itemsize, frame.itemsize)
    return frame if packed else np.ascontiguousarray(frame)


def preprocess(
    frame: Frame,
    out: NDArray[np.float32],
    *,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
    swap_rb: bool,
    threads: int = 1,
) -> None:
    """Resize, reorder, normalise and lay out a frame as NCHW in one pass, in place.

    Args:
        frame: (h, w, 3) uint8 BGR, any row stride.
        out: (1, C, H, W) or (C, H, W) float32, C-contiguous. C = 1 gives BT.601 luma.
        scale, mean, std: out = (pixel * scale - mean) / std, in the order of out's channels.
        swap_rb: True makes channel 0 of out red.

    The resize is bilinear with half-pixel centres, no antialiasing, within 0.02 grey levels of exact arithmetic.
    """
    _kernels.preprocess(_packed(frame), out, float(scale), [float(v) for v in mean], [float(v) for v in std], swap_rb, threads)


def upsample_argmax(logits: NDArray[np.float32], size: tuple[int, int], out: Labels | None = None, *, threads: int = 1) -> Labels:
    """The label map at ``size`` = (H, W) of logits (C, h, w) float32, C in 2..256: bilinear (half-pixel), then argmax.

    Ties go to the lowest class, NaN counts as -inf. Returns (H, W) uint8, ``out`` if given.
    """
    labels = np.empty(size, np.uint8) if out is None else out
    _check_size(labels, size)
    _kernels.upsample_argmax(_contiguous(logits), labels, threads)
    return labels


def upsample_threshold(
    logits: NDArray[np.float32], size: tuple[int, int], threshold: float, out: Labels | None = None, *, threads: int = 1
) -> Labels:
    """1 where the bilinearly upsampled map (h, w) or (1, h, w) float32 exceeds ``threshold``, else 0 (NaN too): (H, W) uint8."""
    labels = np.empty(size, np.uint8) if out is None else out
    _check_size(labels, size)
    plane = logits[None] if logits.ndim == 2 else logits
    _kernels.upsample_threshold(_contiguous(plane), labels, float(threshold), threads)
    return labels


def upsample_nearest(labels: Array, size: tuple[int, int], out: Labels | None = None) -> Labels:
    """A label map (h, w) uint8, int32 or int64 at ``size``, nearest neighbour with half-pixel centres: (H, W) uint8.

    Values outside 0..255 become 255 (ignore).
    """
    result = np.empty(size, np.uint8) if out is None else out
    _check_size(result, size)
    _kernels.upsample_nearest(_contiguous(labels), result)
    return result


def overlay(
    frame: Frame, labels: Labels, palette_bgr: NDArray[np.uint8], alpha: float, out: Frame | None = None, *, threads: int = 1
) -> Frame:
    """Blend the labels' colours over a frame: (frame * (256 - a) + colour * a + 128) >> 8 with a = round(alpha * 256).

    Args:
        frame: (H, W, 3) uint8 BGR, any row stride.
        labels: (H, W) uint8; 255 leaves the pixel as it is.
        palette_bgr: (256, 3) uint8.
        alpha: 0..1.
        out: (H, W, 3) uint8; may be ``frame`` itself.
    """
    result = np.empty(frame.shape, np.uint8) if out is None else out
    _kernels.overlay(_packed(frame), _contiguous(labels), palette_bgr, float(alpha), result, threads)
    return result


def upsample_argmax_overlay(
    logits: NDArray[np.float32],
    frame: Frame,
    palette_bgr: NDArray[np.uint8],
    alpha: float,
    labels_out: Labels,
    frame_out: Frame,
    *,
    threads: int = 1,
) -> None:
    """``upsample_argmax`` to the frame's size and ``overlay`` in one pass, into (H, W) uint8 and (H, W, 3) uint8 in place."""
    _kernels.upsample_argmax_overlay(_contiguous(logits), _packed(frame), palette_bgr, float(alpha), labels_out, frame_out, threads)


def _check_size(out: Labels, size: tuple[int, int]) -> None:
    if out.shape != tuple(size):
        raise ValueError(f"out: got {out.shape}; expected {tuple(size)} uint8")
