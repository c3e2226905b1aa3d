"""What a frame passes on the device before and after the network: float64 references and faces of the CPU twins.

The kernels of trt_plugins/frame are for frames that are on the GPU; on the CPU live code takes edgeseg.native.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.ops import launch
from edgeseg.ops.bilinear import resize

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Size = tuple[int, int]

KINDS = {"bgr": 0, "nv12": 1, "depth16": 2}
"""Kind of frame -> ES_FRAME_*: (h, w, 3) uint8, (h * 3 / 2, w) uint8 (luma, then interleaved U and V), (h, w) uint16."""

IGNORE = 255


# --- references -------------------------------------------------------------------------------------------------------


def nv12_to_bgr(frame: Bytes) -> Doubles:
    """(h * 3 / 2, w) to (h, w, 3), BT.601 limited range, clamped to 0..255 and not rounded."""
    h, w = frame.shape[0] * 2 // 3, frame.shape[1]
    luma = np.maximum(frame[:h].astype(np.float64) - 16, 0) * (255 / 219)
    chroma = frame[h:].reshape(h // 2, w // 2, 2).repeat(2, axis=0).repeat(2, axis=1).astype(np.float64) - 128
    u, v = chroma[..., 0] * (255 / 224), chroma[..., 1] * (255 / 224)
    # The primaries' weights of BT.601: 0.299 R + 0.587 G + 0.114 B.
    green = luma - 1.772 * (0.114 / 0.587) * u - 1.402 * (0.299 / 0.587) * v
    return np.clip(np.stack([luma + 1.772 * u, green, luma + 1.402 * v], axis=-1), 0, 255)


def _resize_depth(depth: Array, size: Size) -> Doubles:
    weights = resize((depth > 0).astype(np.float64), size)
    sums = resize(depth.astype(np.float64), size)
    return np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)


def preprocess_reference(
    frame: Array, channels: int, size: Size, *, kind: str, mul: Sequence[float], add: Sequence[float], swap_rb: bool = False
) -> Doubles:
    """A frame to (1, channels, *size): resized, then pixel * mul + add, one value each per channel of the output."""
    if kind == "depth16":
        planes = _resize_depth(frame, size)[None]
    else:
        colours = nv12_to_bgr(frame) if kind == "nv12" else frame.astype(np.float64)
        planes = resize(colours.transpose(2, 0, 1), size)
        planes = (0.114 * planes[0] + 0.587 * planes[1] + 0.299 * planes[2])[None] if channels == 1 else planes
        planes = planes[::-1] if swap_rb else planes
    scale, offset = (np.asarray(values, np.float64)[:channels, None, None] for values in (mul, add))
    return (planes * scale + offset)[None]


def overlay_reference(frame: Bytes, labels: Bytes, palette_bgr: Bytes, alpha: int) -> Bytes:
    """(H, W, 3): (frame * (256 - alpha) + colour * alpha + 128) >> 8; label 255 keeps the frame."""
    blended = (frame.astype(np.int64) * (256 - alpha) + palette_bgr.astype(np.int64)[labels] * alpha + 128) >> 8
    return np.where((labels == IGNORE)[..., None], frame, blended).astype(np.uint8)


# --- the CPU twins ----------------------------------------------------------------------------------------------------


def preprocess(
    frame: Array,
    channels: int,
    size: Size,
    *,
    kind: str,
    mul: Sequence[float],
    add: Sequence[float],
    swap_rb: bool = False,
    dtype: str = "float32",
    format: str = "linear",
    threads: int = 1,
) -> Array:
    """A frame of any row stride to an array that holds (1, channels, *size) in ``format`` (``launch.unpack`` takes it apart).

    Args:
        kind: of ``KINDS``; an NV12 frame is one array of both planes.
        mul, add: output = pixel * mul + add, one value each per channel, in the order of the output's.
        swap_rb: True makes channel 0 red.
        dtype: float32, float16 or int8 (rounded half to even, saturated).

    Raises:
        ValueError: a frame, size or type that the operator does not have.
    """
    height, width = _frame_size(frame, kind)
    shape = (1, channels, *size)
    out = np.empty(launch.packed_shape(shape, format), dtype)
    triples = ((c_float * 3)(*values[:3]) for values in (mul, add))
    arguments = launch.Preprocess(
        *(frame.ctypes.data, None, frame.strides[0], KINDS[kind], height, width),
        *(launch.tensor_of(out, shape, format), *triples, swap_rb),
    )
    launch.cpu_library().run("preprocess", arguments, threads)
    return out


def _frame_size(frame: Array, kind: str) -> Size:
    """The picture's (h, w).

    Raises:
        ValueError: the array does not hold a frame of that kind, or its pixels do not lie side by side.
    """
    dtype, dimensions = (np.uint16, 2) if kind == "depth16" else (np.uint8, 3 if kind == "bgr" else 2)
    good = frame.dtype == dtype and frame.ndim == dimensions and frame.shape[2:] in ((), (3,)) and frame.size > 0
    if not good or frame[0].strides != np.empty(frame.shape[1:], dtype).strides:
        raise ValueError(f"frame {frame.shape} {frame.dtype}; expected {kind} with packed rows")
    if kind == "nv12" and frame.shape[0] % 3:
        raise ValueError(f"frame {frame.shape}; expected (h * 3 / 2, w) with even h for nv12")
    return (frame.shape[0] * 2 // 3 if kind == "nv12" else frame.shape[0]), frame.shape[1]


def overlay(frame: Bytes, labels: Bytes, palette_bgr: Bytes, alpha: int, out: Bytes | None = None, *, threads: int = 1) -> Bytes:
    """Blend the labels' colours over a frame.

    Args:
        frame: (H, W, 3) uint8 BGR, any row stride.
        labels: (H, W) uint8, C-contiguous; 255 leaves the pixel as it is.
        palette_bgr: (256, 3) uint8, C-contiguous.
        alpha: 0..256.
        out: (H, W, 3) uint8; may be ``frame`` itself.

    Raises:
        ValueError: an array of another shape or type, or ``alpha`` outside its range.
    """
    result = np.empty(frame.shape, np.uint8) if out is None else out
    height, width = _frame_size(frame, "bgr")
    if result.shape != frame.shape or _frame_size(result, "bgr") != labels.shape or palette_bgr.shape != (256, 3):
        raise ValueError(
            f"out {result.shape}, labels {labels.shape}, palette {palette_bgr.shape}; expected those of frame {frame.shape}"
        )
    for name, array in (("labels", labels), ("palette", palette_bgr)):
        if array.dtype != np.uint8 or not array.flags.c_contiguous:
            raise ValueError(f"{name} {array.dtype}; expected C-contiguous uint8")
    arguments = launch.Overlay(
        *(frame.ctypes.data, frame.strides[0], result.ctypes.data, result.strides[0]),
        *(labels.ctypes.data, palette_bgr.ctypes.data, height, width, alpha),
    )
    launch.cpu_library().run("overlay", arguments, threads)
    return result
