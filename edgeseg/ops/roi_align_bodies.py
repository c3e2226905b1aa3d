"""RoIAlign in standard ONNX operators: by RoiAlign-16 for runtimes that have it, by GridSample for those that do not.

Both give what the operator is defined to give for any box, and no box makes them fail or run for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import FunctionProto, TensorProto

from edgeseg.errors import OnnxError
from edgeseg.ops.body import BodyWriter
from edgeseg.ops.roi_align_options import REACH, RoiAlignOptions, least_areas

_OUTSIDE = 4.0  # a GridSample coordinate beyond the image by any reckoning: zero padding is sampled there


def _inputs(options: RoiAlignOptions) -> list[str]:
    return ["rois", "batch_indices", *(f"feature_{level}" for level in range(len(options.spatial_scales)))]


def _options(attributes: dict[str, Any]) -> RoiAlignOptions:
    options = RoiAlignOptions(**attributes)
    options.check(len(options.spatial_scales))
    return options


def _usable(w: BodyWriter, images: str | int) -> str:
    """(K) bool: all coordinates finite, batch index in range."""
    finite = w.op("Cast", w.op("LessOrEqual", w.op("Abs", "rois"), float(np.finfo(np.float32).max)), to=TensorProto.FLOAT)
    finite = w.op("Greater", w.op("ReduceMin", finite, [1], keepdims=0), 0.5)
    known = w.op("And", w.op("GreaterOrEqual", "batch_indices", 0), w.op("Less", "batch_indices", images))
    return w.op("And", finite, known)


def _sides(w: BodyWriter, boxes: str, axis: int) -> tuple[str, str]:
    """(K, 1) low and high coordinate of an axis, 0 for x."""
    return tuple(w.op("Slice", boxes, [i], [i + 1], [1]) for i in (axis, axis + 2))  # type: ignore[return-value]


def _at_or_above(w: BodyWriter, boxes: str, options: RoiAlignOptions) -> list[str]:
    """(K, 1) bool for levels 1, 2, ...: the box belongs to that level or a coarser one."""
    (x1, x2), (y1, y2) = _sides(w, boxes, 0), _sides(w, boxes, 1)
    area = w.op("Mul", w.op("Sub", x2, x1), w.op("Sub", y2, y1))
    return [w.op("GreaterOrEqual", area, least) for least in least_areas(options)]


# --- standard: RoiAlign-16 -------------------------------------------------------------------------------------------


def standard_body(name: str, attributes: dict[str, Any], shapes: Sequence[tuple[int, ...] | None] = ()) -> FunctionProto:
    """RoiAlign-16 once a level on the boxes of that level; boxes that give zeros are never handed to it.

    Boxes are scaled and clamped before, so ``spatial_scale`` is 1.
    """
    options = _options(attributes)
    w = BodyWriter()
    images = w.op("Slice", w.op("Shape", "feature_0"), [0], [1])
    usable = _usable(w, images)
    level = w.constant([[0]])
    for above in _at_or_above(w, "rois", options):
        level = w.op("Add", level, w.op("Cast", above, to=TensorProto.INT64))
    parts = [_level_part(w, options, index, level, usable) for index in range(len(options.spatial_scales))]
    boxes, values = (w.op("Concat", *column, axis=0) if len(column) > 1 else column[0] for column in zip(*parts, strict=True))
    count = w.op("Slice", w.op("Shape", "rois"), [0], [1])
    channels = w.op("Slice", w.op("Shape", "feature_0"), [1], [2])
    shape = w.op("Concat", count, channels, [options.output_height, options.output_width], axis=0)
    pooled = w.op("ScatterND", w.op("Expand", 0.0, shape), w.op("Unsqueeze", boxes, [1]), values)
    return w.finish(name, _inputs(options), {"pooled": w.op("CastLike", pooled, "feature_0")})


def _level_part(w: BodyWriter, options: RoiAlignOptions, index: int, level: str, usable: str) -> tuple[str, str]:
    """Numbers (M) of the boxes of one level and their features (M, C, oh, ow) float32."""
    feature = f"feature_{index}"
    size = w.op("Cast", w.op("Gather", w.op("Shape", feature), [3, 2, 3, 2]), to=TensorProto.FLOAT)
    scaled = w.op("Mul", "rois", float(options.spatial_scales[index]))
    scaled = w.op("Max", w.op("Min", scaled, w.op("Add", size, float(REACH))), float(-REACH))
    chosen = w.op("And", usable, w.op("Reshape", w.op("Equal", level, index), [-1]))
    if options.aligned and not options.sampling_ratio:
        chosen = w.op("And", chosen, _has_size(w, scaled))
    boxes = w.op("Reshape", w.op("NonZero", chosen), [-1])
    coordinates = "half_pixel" if options.aligned else "output_half_pixel"
    pooled = w.op(
        "RoiAlign",
        w.op("Cast", feature, to=TensorProto.FLOAT),
        w.op("Gather", scaled, boxes, axis=0),
        w.op("Gather", "batch_indices", boxes, axis=0),
        mode=options.mode,
        output_height=options.output_height,
        output_width=options.output_width,
        sampling_ratio=options.sampling_ratio,
        spatial_scale=1.0,
        coordinate_transformation_mode=coordinates,
    )
    return boxes, pooled


def _has_size(w: BodyWriter, scaled: str) -> str:
    """(K) bool: neither side is zero or reversed, which RoiAlign with adaptive sampling does not take everywhere."""
    shifted = w.op("Sub", scaled, 0.5)
    sides = w.op("Sub", w.op("Slice", shifted, [2], [4], [1]), w.op("Slice", shifted, [0], [2], [1]))
    return w.op("Greater", w.op("ReduceMin", sides, [1], keepdims=0), 0.0)


# --- primitive: GridSample -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pyramid:
    """All images of all levels below each other on one canvas, so that one GridSample serves every box."""

    shapes: list[tuple[int, int, int, int]]

    @property
    def images(self) -> int:
        return self.shapes[0][0]

    @property
    def height(self) -> int:
        return sum(self.images * h for _, _, h, _ in self.shapes)

    @property
    def width(self) -> int:
        return max(w for *_, w in self.shapes)

    @property
    def first_rows(self) -> list[int]:
        heights = [self.images * h for _, _, h, _ in self.shapes]
        return [sum(heights[:level]) for level in range(len(heights))]


@dataclass(frozen=True)
class _Samples:
    """One axis of the sampling grid, (K, samples) each unless said."""

    at: str  # clamped to the map
    inside: str  # bool
    size: str  # (K, 1) or a scalar, pixels of the map


def primitive_body(name: str, attributes: dict[str, Any], shapes: Sequence[tuple[int, ...] | None]) -> FunctionProto:
    """One GridSample over a canvas of the whole pyramid, for static shapes; no operator whose result's shape depends on data.

    The largest tensors are the canvas and the samples, (C, K * oh * ratio, ow * ratio) float32: 200 MB for 1,000 boxes of
    7x7, ratio 2, 256 channels. ``mode="max"`` takes the four neighbours of each sample by four GridSamples.

    Raises:
        OnnxError: sampling_ratio 0, whose number of samples depends on the boxes; unknown shapes.
    """
    options = _options(attributes)
    if options.sampling_ratio == 0:
        raise OnnxError(
            "RoIAlign with sampling_ratio 0 for a runtime without it",
            "a fixed number of samples",
            "export with sampling_ratio >= 1",
        )
    if len(shapes) != len(_inputs(options)) or any(shape is None for shape in shapes) or not all(shapes[0] or (0,)):
        raise OnnxError(f"RoIAlign: input shapes {list(shapes)}", "static shapes and at least one box", "export with fixed sizes")
    pyramid = _Pyramid([shape for shape in shapes[2:] if shape is not None])  # type: ignore[misc]
    boxes = (shapes[0] or (0,))[0]
    w = BodyWriter()
    rows, columns = _grid(w, options, pyramid)
    canvas = w.op("Cast", _canvas(w, pyramid), to=TensorProto.FLOAT)
    pooled = (_maximum if options.mode == "max" else _average)(w, canvas, rows, columns, (boxes, options))
    pooled = w.op("Reshape", pooled, [pyramid.shapes[0][1], boxes, options.output_height, options.output_width])
    pooled = w.op("CastLike", w.op("Transpose", pooled, perm=[1, 0, 2, 3]), "feature_0")
    return w.finish(name, _inputs(options), {"pooled": pooled})


def _canvas(w: BodyWriter, pyramid: _Pyramid) -> str:
    """(1, C, rows of all images of all levels, width of the widest level)."""
    parts = []
    for level, (n, c, height, width) in enumerate(pyramid.shapes):
        part = f"feature_{level}"
        if n > 1:
            part = w.op("Reshape", w.op("Transpose", part, perm=[1, 0, 2, 3]), [1, c, n * height, width])
        if width < pyramid.width:
            part = w.op("Pad", part, [0, 0, 0, 0, 0, 0, 0, pyramid.width - width])
        parts.append(part)
    return w.op("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class _Side:
    """An axis of the grid in the canvas: samples, and how to turn pixels of the map into GridSample's coordinates."""

    samples: _Samples
    first: str | None  # (K, 1) first pixel of the box's map; None: 0
    length: int  # of the canvas

    def coordinates(self, w: BodyWriter, pixels: str) -> str:
        """GridSample's coordinates (align_corners=0) of pixels of the map, outside the canvas for samples that count as 0."""
        place = pixels if self.first is None else w.op("Add", pixels, self.first)
        normal = w.op("Sub", w.op("Div", w.op("Add", w.op("Mul", place, 2.0), 1.0), float(self.length)), 1.0)
        return w.op("Where", self.samples.inside, normal, _OUTSIDE)


def _grid(w: BodyWriter, options: RoiAlignOptions, pyramid: _Pyramid) -> tuple[_Side, _Side]:
    """Rows and columns of the grid."""
    usable = w.op("Unsqueeze", _usable(w, pyramid.images), [1])
    boxes = w.op("Where", usable, "rois", 0.0)
    above = _at_or_above(w, boxes, options)

    def pick(values: Sequence[float]) -> str:
        """(K, 1) or a scalar: a value of the level of each box."""
        chosen = w.constant(np.float32(values[0]))
        for condition, value in zip(above, values[1:], strict=True):
            chosen = w.op("Where", condition, np.float32(value), chosen)
        return chosen

    scale = pick(options.spatial_scales)
    heights, widths = pick([h for _, _, h, _ in pyramid.shapes]), pick([w_ for *_, w_ in pyramid.shapes])
    first = pick(pyramid.first_rows)
    if pyramid.images > 1:
        image = w.op("Where", usable, w.op("Unsqueeze", w.op("Cast", "batch_indices", to=TensorProto.FLOAT), [1]), 0.0)
        first = w.op("Add", first, w.op("Mul", image, heights))
    columns = _samples(w, _sides(w, boxes, 0), (scale, widths, usable), options.output_width, options)
    rows = _samples(w, _sides(w, boxes, 1), (scale, heights, usable), options.output_height, options)
    return _Side(rows, first, pyramid.height), _Side(columns, None, pyramid.width)


def _samples(w: BodyWriter, sides: tuple[str, str], box: tuple[str, str, str], bins: int, options: RoiAlignOptions) -> _Samples:
    """Samples of all bins of one axis; the same float32 operations in the same order as in the kernel."""
    scale, size, usable = box
    far = w.op("Add", size, float(REACH))
    start, end = (w.op("Max", w.op("Min", w.op("Mul", side, scale), far), float(-REACH)) for side in sides)
    if options.aligned:
        start, end = w.op("Sub", start, 0.5), w.op("Sub", end, 0.5)
    extent = w.op("Sub", end, start)
    width = w.op("Div", extent if options.aligned else w.op("Max", extent, 1.0), float(bins))
    ratio = options.sampling_ratio
    bin_ = np.repeat(np.arange(bins, dtype=np.float32), ratio)[None]
    part = np.tile(np.arange(ratio, dtype=np.float32) + np.float32(0.5), bins)[None]
    within = w.op("Div", w.op("Mul", part, width), float(ratio))
    at = w.op("Add", w.op("Add", start, w.op("Mul", bin_, width)), within)
    inside = w.op("And", w.op("GreaterOrEqual", at, -1.0), w.op("LessOrEqual", at, size))
    clamped = w.op("Max", w.op("Min", at, w.op("Sub", size, 1.0)), 0.0)
    return _Samples(clamped, w.op("And", inside, usable), size)


def _outer(w: BodyWriter, rows: str, columns: str, shape: tuple[int, int, int]) -> tuple[str, str]:
    """(K, samples) of both axes to (K, row samples, column samples, 1) each."""
    boxes, height, width = shape
    target = [boxes, height, width, 1]
    upright = w.op("Expand", w.op("Reshape", rows, [boxes, height, 1, 1]), target)
    return upright, w.op("Expand", w.op("Reshape", columns, [boxes, 1, width, 1]), target)


def _lookup(w: BodyWriter, canvas: str, y: str, x: str, job: tuple[int, RoiAlignOptions], mode: str) -> str:
    """(1, C, K * row samples, column samples)."""
    boxes, options = job
    height, width = options.output_height * options.sampling_ratio, options.output_width * options.sampling_ratio
    upright, level = _outer(w, y, x, (boxes, height, width))
    grid = w.op("Reshape", w.op("Concat", level, upright, axis=3), [1, boxes * height, width, 2])
    return w.op("GridSample", canvas, grid, mode=mode, padding_mode="zeros", align_corners=0)


def _average(w: BodyWriter, canvas: str, rows: _Side, columns: _Side, job: tuple[int, RoiAlignOptions]) -> str:
    y, x = rows.coordinates(w, rows.samples.at), columns.coordinates(w, columns.samples.at)
    ratio = job[1].sampling_ratio
    sampled = _lookup(w, canvas, y, x, job, "bilinear")
    return w.op("AveragePool", sampled, kernel_shape=[ratio, ratio], strides=[ratio, ratio]) if ratio > 1 else sampled


def _maximum(w: BodyWriter, canvas: str, rows: _Side, columns: _Side, job: tuple[int, RoiAlignOptions]) -> str:
    boxes, options = job
    ratio = options.sampling_ratio
    height, width = options.output_height * ratio, options.output_width * ratio
    weighted = []
    for pixel_y, share_y in _corners(w, rows):
        for pixel_x, share_x in _corners(w, columns):
            values = _lookup(w, canvas, rows.coordinates(w, pixel_y), columns.coordinates(w, pixel_x), job, "nearest")
            share = w.op("Mul", w.op("Unsqueeze", share_y, [2]), w.op("Unsqueeze", share_x, [1]))
            weighted.append(w.op("Mul", values, w.op("Reshape", share, [1, 1, boxes * height, width])))
    most = w.op("Max", w.op("Max", weighted[0], weighted[1]), w.op("Max", weighted[2], weighted[3]))
    return w.op("MaxPool", most, kernel_shape=[ratio, ratio], strides=[ratio, ratio]) if ratio > 1 else most


def _corners(w: BodyWriter, side: _Side) -> list[tuple[str, str]]:
    """(pixel, weight) of the lower and the upper neighbour of each sample."""
    low = w.op("Floor", side.samples.at)
    high = w.op("Min", w.op("Add", low, 1.0), w.op("Sub", side.samples.size, 1.0))
    share = w.op("Sub", side.samples.at, low)
    return [(low, w.op("Sub", 1.0, share)), (high, share)]
