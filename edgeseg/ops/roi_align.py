"""RoIAlign over a feature pyramid: boxes of any size to features of one size (He et al., Mask R-CNN, 2017, section 3).

A box goes to the level that fits its area (Lin et al., FPN, 2017, equation 1). Each output bin is the average of
``sampling_ratio`` x ``sampling_ratio`` bilinear samples. ``mode="max"`` is ONNX's: the largest of the four *weighted
values* that a sample is the sum of, over all samples (RoiAlign-16 and its node tests). It is not the maximum of the
bilinear samples, as the paper has it: between equal pixels of 1 a sample is 1, while ONNX's maximum may be 0.25.

Coordinates are float32 in every precision, one rounding an operation, so that all implementations sample alike.
Defined for any box: coordinates that are not finite and batch indices out of range give zeros; scaled coordinates are
clamped to 512 feature pixels beyond the map; bins without size and with ``sampling_ratio=0`` have no samples and give
zeros (with ``aligned=False`` a box has at least one pixel); samples more than a pixel outside the map count as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.ops import launch
from edgeseg.ops.functions import Bodies
from edgeseg.ops.roi_align_bodies import primitive_body, standard_body
from edgeseg.ops.roi_align_options import REACH, RoiAlignOptions, least_areas

__all__ = ["BODIES", "RoiAlignOptions", "primitive_body", "roi_align", "roi_align_reference", "standard_body"]

BODIES = {"RoIAlign": Bodies(standard_body, primitive_body)}


# --- the CPU twin ----------------------------------------------------------------------------------------------------


def roi_align(
    rois_xyxy_px: NDArray[np.float32],
    batch_indices: NDArray[Any],
    features: Sequence[NDArray[Any]],
    options: RoiAlignOptions,
    *,
    format: str = "linear",
    threads: int = 1,
    library: launch.Library | None = None,
    name: str = "roi_align",
) -> NDArray[Any]:
    """The CPU twin.

    Args:
        rois_xyxy_px: (K, 4) float32, x1, y1, x2, y2 in image pixels.
        batch_indices: (K) int32 or int64, the image of each box.
        features: maps (N, C, H_l, W_l), finest first: float32, float16 or int8 codes of one scale.
        format: the memory format to run in; arrays are packed for it and the result is unpacked.
        library: where the twin is; None: the package's own.
        name: which entry of the library runs.

    Returns:
        (K, C, output_height, output_width) of the features' dtype.

    Raises:
        ValueError: shapes, dtypes or options that the operator does not take.
    """
    _check(rois_xyxy_px, batch_indices, features, options)
    rois = np.ascontiguousarray(rois_xyxy_px)
    indices = np.ascontiguousarray(batch_indices)
    maps = [launch.pack(np.ascontiguousarray(level), format) for level in features]
    shape = (len(rois), features[0].shape[1], options.output_height, options.output_width)
    out = np.empty(launch.packed_shape(shape, format), features[0].dtype)
    arguments = launch.RoiAlign(
        features=tuple(launch.tensor_of(map_, level.shape, format) for map_, level in zip(maps, features, strict=True)),
        spatial_scales=tuple(options.spatial_scales),
        levels=len(maps),
        rois=rois.ctypes.data,
        batch_indices=indices.ctypes.data,
        index_type=launch.TYPES[indices.dtype.name],
        output=launch.tensor_of(out, shape, format),
        sampling_ratio=options.sampling_ratio,
        max_mode=options.mode == "max",
        aligned=bool(options.aligned),
        canonical_size=options.canonical_size,
        canonical_level=options.canonical_level,
    )
    (library or launch.cpu_library()).run(name, arguments, threads)
    return launch.unpack(out, format, shape[1])


def _check(rois: NDArray[Any], indices: NDArray[Any], features: Sequence[NDArray[Any]], options: RoiAlignOptions) -> None:
    options.check(len(features))
    if rois.ndim != 2 or rois.shape[1] != 4 or rois.dtype != np.float32:
        raise ValueError(f"roi_align: rois {rois.shape} {rois.dtype}; expected (K, 4) float32")
    if indices.shape != rois.shape[:1] or indices.dtype not in (np.int32, np.int64):
        raise ValueError(f"roi_align: batch_indices {indices.shape} {indices.dtype}; expected ({len(rois)},) int32 or int64")
    for level in features:
        if level.ndim != 4 or level.dtype.name not in ("float32", "float16", "int8") or level.dtype != features[0].dtype:
            raise ValueError(
                f"roi_align: a level {level.shape} {level.dtype}; expected (N, C, H, W) of one of float32, float16, int8"
            )


# --- the definition --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """One axis of a box on its level: all samples of each bin, inside the map or not."""

    positions: NDArray[np.float32]  # (bins, count)
    size: int


def roi_align_reference(
    rois_xyxy_px: NDArray[np.float32], batch_indices: NDArray[Any], features: Sequence[NDArray[Any]], options: RoiAlignOptions
) -> NDArray[np.float64]:
    """The definition in plain loops over boxes, bins and samples: (K, C, output_height, output_width) float64.

    Of int8 features it is the mean (or maximum) of the codes, before it is rounded half to even and saturated.
    Arguments as for ``roi_align``.
    """
    _check(rois_xyxy_px, batch_indices, features, options)
    maps = [level.astype(np.float64) for level in features]
    out = np.zeros((len(rois_xyxy_px), maps[0].shape[1], options.output_height, options.output_width))
    for k, (roi, image) in enumerate(zip(rois_xyxy_px, batch_indices, strict=True)):
        if 0 <= image < len(maps[0]) and np.isfinite(roi).all():
            level = level_of(roi, options)
            _pool_box(roi, maps[level][image], options.spatial_scales[level], options, out[k])
    return out


def level_of(roi_xyxy_px: NDArray[np.float32], options: RoiAlignOptions) -> int:
    """The level of a box: FPN's equation 1 by comparison of the float32 area; the finest unless the area is above 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        area = (roi_xyxy_px[2] - roi_xyxy_px[0]) * (roi_xyxy_px[3] - roi_xyxy_px[1])
    return int(sum(area >= least for least in least_areas(options)))


def _pool_box(
    roi: NDArray[np.float32], level: NDArray[np.float64], scale: float, options: RoiAlignOptions, out: NDArray[np.float64]
) -> None:
    columns = _axis(roi[0], roi[2], scale, level.shape[2], options.output_width, options)
    rows = _axis(roi[1], roi[3], scale, level.shape[1], options.output_height, options)
    for i, j in np.ndindex(options.output_height, options.output_width):
        samples = [_weighted(level, rows, columns, y, x) for y in rows.positions[i] for x in columns.positions[j]]
        if samples:
            values = np.stack(samples)  # (samples, 4, C)
            out[:, i, j] = values.max(axis=(0, 1)) if options.mode == "max" else values.sum(axis=1).mean(axis=0)


def _axis(low: np.float32, high: np.float32, scale: float, size: int, bins: int, options: RoiAlignOptions) -> _Axis:
    f = np.float32
    offset, far = f(0.5 if options.aligned else 0.0), f(size) + f(REACH)
    with np.errstate(over="ignore"):
        start = np.clip(low * f(scale), -f(REACH), far) - offset
        end = np.clip(high * f(scale), -f(REACH), far) - offset
    extent = end - start if options.aligned else max(end - start, f(1))
    width = extent / f(bins)
    count = options.sampling_ratio or max(int(np.ceil(width)), 0)
    within = (np.arange(count, dtype=f) + f(0.5)) * width / f(count)
    positions = (start + np.arange(bins, dtype=f) * width)[:, None] + within[None]
    return _Axis(positions.astype(f), size)


def _weighted(level: NDArray[np.float64], rows: _Axis, columns: _Axis, y: np.float32, x: np.float32) -> NDArray[np.float64]:
    """The four weighted values (4, C) whose sum is the bilinear sample; 0 outside."""
    if not (-1 <= y <= rows.size and -1 <= x <= columns.size):
        return np.zeros((4, level.shape[0]))
    return np.stack([a * b * level[:, i, j] for i, a in _neighbours(y, rows.size) for j, b in _neighbours(x, columns.size)])


def _neighbours(at: np.float32, size: int) -> list[tuple[int, float]]:
    at = max(at, np.float32(0))
    low = int(at)
    if low >= size - 1:
        return [(size - 1, 1.0), (size - 1, 0.0)]
    share = float(at) - low
    return [(low, 1.0 - share), (low + 1, share)]
