"""RoIAlign for PyTorch: ``edgeseg::roi_align``, differentiable with respect to the features.

The average over a grid of bilinear samples is separable: (K, bins, H) and (K, bins, W) matrices of weights on both sides
of a map, so forward and backward are matrix products, on any device and for any number of samples. As they run over
whole rows and columns, a NaN or an infinity in a map reaches boxes beside it, unlike in the kernels. The maximum looks up
all weighted neighbours, some boxes at a time; its gradient goes to the pixel that was the largest, the first of equals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgeseg.ops.roi_align_options import REACH, RoiAlignOptions, least_areas

_MOST_ELEMENTS = 1 << 25  # of an intermediate result


@torch.library.custom_op("edgeseg::roi_align", mutates_args=())
def roi_align(
    rois: Tensor,
    batch_indices: Tensor,
    features: Sequence[Tensor],
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    mode: str,
    aligned: bool,
    spatial_scales: Sequence[float],
    canonical_size: float,
    canonical_level: int,
) -> Tensor:
    """Features of boxes: (K, C, output_height, output_width) of the features' dtype.

    Args:
        rois: (K, 4) float32, x1, y1, x2, y2 in image pixels.
        batch_indices: (K) int64, the image of each box; out of range: zeros.
        features: (N, C, H_l, W_l), finest first: floating point, or int8 codes of one scale.

    The other arguments are the fields of ``RoiAlignOptions``. Coordinates are float32 in every precision; the rest is
    float32 too, or float64 for float64 features.

    Raises:
        ValueError: an argument out of range.
    """
    options = RoiAlignOptions(
        output_height, output_width, spatial_scales, sampling_ratio, mode, aligned, canonical_size, canonical_level
    )
    options.check(len(features))
    if rois.shape != (len(batch_indices), 4):
        raise ValueError(
            f"roi_align: rois {tuple(rois.shape)}, batch_indices {tuple(batch_indices.shape)}; expected (K, 4) and (K,)"
        )
    dtype = _compute_type(features[0])
    out = features[0].new_zeros((len(rois), features[0].shape[1], output_height, output_width), dtype=dtype)
    shapes = [feature.shape for feature in features]
    for group in _groups(rois.float(), batch_indices, shapes, options):
        image = features[group.level][group.image].to(dtype)
        out[group.boxes] = _maxima(image, group) if mode == "max" else _averages(image, group, dtype)
    return out.round_().clamp_(-128, 127).to(torch.int8) if features[0].dtype == torch.int8 else out.to(features[0].dtype)


@roi_align.register_fake
def _(rois: Tensor, batch_indices: Tensor, features: Sequence[Tensor], output_height: int, output_width: int, *_: Any) -> Tensor:
    return features[0].new_empty((rois.shape[0], features[0].shape[1], output_height, output_width))


def _compute_type(feature: Tensor) -> torch.dtype:
    return torch.float64 if feature.dtype == torch.float64 else torch.float32


# --- where the samples lie -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """All samples (boxes, bins, samples) of one axis: neighbours, their weights (0 outside and beyond a box's own number)."""

    low: Tensor
    high: Tensor
    low_weight: Tensor
    high_weight: Tensor
    count: Tensor  # (boxes), own number of samples a bin
    size: int

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """(boxes, bins, size): the weight of each row of the map in each bin."""
        weights = self.low_weight.new_zeros((*self.low.shape[:2], self.size), dtype=dtype)
        weights.scatter_add_(2, self.low, self.low_weight.to(dtype)).scatter_add_(2, self.high, self.high_weight.to(dtype))
        return weights / self.count.clamp(min=1).to(dtype)[:, None, None]

    def some(self, boxes: slice) -> _Axis:
        """Some boxes, without the samples that none of them has."""
        count = self.count[boxes]
        most = int(count.max())
        low, high, low_weight, high_weight = (
            part[boxes, :, :most] for part in (self.low, self.high, self.low_weight, self.high_weight)
        )
        return _Axis(low, high, low_weight, high_weight, count, self.size)

    @property
    def present(self) -> Tensor:
        """(boxes, bins * samples) bool: the samples that a box has of its own."""
        boxes, bins, most = self.low.shape
        own = torch.arange(most, device=self.count.device) < self.count[:, None]
        return own[:, None].expand(boxes, bins, most).flatten(1)

    @property
    def corners(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """(indices, weights) (boxes, bins * samples) of the lower and the upper neighbours."""
        return (self.low.flatten(1), self.low_weight.flatten(1)), (self.high.flatten(1), self.high_weight.flatten(1))


@dataclass(frozen=True)
class _Group:
    """Boxes of one level and one image."""

    level: int
    image: int
    boxes: Tensor  # (k) int64
    rows: _Axis
    columns: _Axis


def _groups(rois: Tensor, images: Tensor, shapes: Sequence[Sequence[int]], options: RoiAlignOptions) -> Iterator[_Group]:
    """All boxes that are not defined to give zeros, some at a time; ``shapes`` (N, C, H, W) of the levels."""
    levels = _levels(rois, options)
    finite = rois.isfinite().all(1)
    for level, (count, channels, height, width) in enumerate(shapes):
        step = max(1, _MOST_ELEMENTS // max(channels * height * options.output_width, 1))
        for image in range(count):
            boxes = (finite & (levels == level) & (images == image)).nonzero().flatten()
            for part in boxes.split(step) if len(boxes) else ():
                scaled = rois[part] * torch.tensor(options.spatial_scales[level], dtype=torch.float32, device=rois.device)
                columns = _axis(scaled[:, 0], scaled[:, 2], width, options.output_width, options)
                rows = _axis(scaled[:, 1], scaled[:, 3], height, options.output_height, options)
                yield _Group(level, image, part, rows, columns)


def _levels(rois: Tensor, options: RoiAlignOptions) -> Tensor:
    area = (rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])
    level = torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
    for least in least_areas(options):
        level += area >= float(least)
    return level


def _axis(low: Tensor, high: Tensor, size: int, bins: int, options: RoiAlignOptions) -> _Axis:
    offset = 0.5 if options.aligned else 0.0
    start, end = (side.clamp(-REACH, size + REACH) - offset for side in (low, high))
    extent = end - start if options.aligned else (end - start).clamp(min=1)
    width = extent / bins
    count = torch.full_like(width, options.sampling_ratio) if options.sampling_ratio else width.ceil().clamp(min=0)
    most = options.sampling_ratio or int(count.max())
    sample = torch.arange(most, device=low.device, dtype=torch.float32)
    bin_ = torch.arange(bins, device=low.device, dtype=torch.float32)
    within = (sample + 0.5) * width[:, None] / count.clamp(min=1)[:, None]
    at = (start[:, None] + bin_ * width[:, None])[:, :, None] + within[:, None]
    counts = (at >= -1) & (at <= size) & (sample < count[:, None])[:, None]
    at = at.clamp(0, size - 1)
    lower = at.floor().clamp(max=max(size - 2, 0))
    share = at - lower
    lower = lower.long()
    return _Axis(lower, (lower + 1).clamp(max=size - 1), (1 - share) * counts, share * counts, count, size)


def _product(equation: str, *factors: Tensor) -> Tensor:
    """einsum in the factors' own precision, whatever autocast would have."""
    with torch.autocast(factors[0].device.type, enabled=False):
        return torch.einsum(equation, *factors)


# --- the two modes ---------------------------------------------------------------------------------------------------


def _averages(image: Tensor, group: _Group, dtype: torch.dtype) -> Tensor:
    """(C, H, W) to (k, C, oh, ow): rows (k, oh, H) x image x columns (k, ow, W)."""
    rows, columns = group.rows.matrix(dtype), group.columns.matrix(dtype)
    across = _product("chw,kjw->kchj", image, columns)
    return _product("kih,kchj->kcij", rows, across)


def _maxima(image: Tensor, group: _Group) -> Tensor:
    """ONNX's maximum: the largest weighted value; samples outside weigh 0 and so count as 0."""
    bins = (group.rows.low.shape[1], group.columns.low.shape[1])
    out = image.new_zeros((len(group.boxes), image.shape[0], *bins))
    for part, rows, columns in _portions(group, image.shape[0]):
        best, _ = _weighted(image, rows, columns).max(-1)
        empty = (rows.count == 0) | (columns.count == 0)
        out[part] = best.masked_fill(empty[:, None, None, None], 0)
    return out


def _portions(group: _Group, channels: int) -> Iterator[tuple[slice, _Axis, _Axis]]:
    """The boxes of a group that have samples, as many at a time as fit into memory."""
    samples = group.rows.low[0].numel() * group.columns.low[0].numel()
    step = max(1, _MOST_ELEMENTS // max(4 * channels * samples, 1))
    for start in range(0, len(group.boxes) if samples else 0, step):
        part = slice(start, start + step)
        rows, columns = group.rows.some(part), group.columns.some(part)
        if rows.low.numel() and columns.low.numel():
            yield part, rows, columns


def _weighted(image: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """(C, H, W) to (k, C, oh, ow, 4 * samples): the weighted neighbours of each bin, -inf for samples that a box has not."""
    absent = ~(rows.present[:, :, None] & columns.present[:, None])
    values = []
    for row, row_weight in rows.corners:
        for column, column_weight in columns.corners:
            weight = (row_weight[:, :, None] * column_weight[:, None]).to(image.dtype)
            found = image[:, row[:, :, None], column[:, None]] * weight
            values.append(found.masked_fill(absent, -torch.inf))
    return torch.stack([_by_bin(value.transpose(0, 1), rows, columns) for value in values], dim=-1).flatten(-2)


def _by_bin(samples: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """(..., oh * ry, ow * rx) to (..., oh, ow, ry * rx)."""
    (_, height, down), (_, width, across) = rows.low.shape, columns.low.shape
    return samples.unflatten(-1, (width, across)).unflatten(-3, (height, down)).transpose(-3, -2).flatten(-2)


def _pixels(rows: _Axis, columns: _Axis) -> tuple[Tensor, Tensor]:
    """Index in the plane and weight (k, oh, ow, 4 * samples) of what ``_weighted`` gives."""
    indices, weights = [], []
    for row, row_weight in rows.corners:
        for column, column_weight in columns.corners:
            indices.append(_by_bin(row[:, :, None] * columns.size + column[:, None], rows, columns))
            weights.append(_by_bin(row_weight[:, :, None] * column_weight[:, None], rows, columns))
    return torch.stack(indices, dim=-1).flatten(-2), torch.stack(weights, dim=-1).flatten(-2)


# --- gradient --------------------------------------------------------------------------------------------------------


@torch.library.custom_op("edgeseg::roi_align_backward", mutates_args=())
def roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    images: int,
    sizes: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
    spatial_scales: Sequence[float],
    canonical_size: float,
    canonical_level: int,
) -> list[Tensor]:
    """Gradients of ``images`` x C feature maps of ``sizes`` H_0, W_0, H_1, W_1, ... from that of the output, average mode."""
    dtype = _compute_type(grad)
    options = RoiAlignOptions(
        grad.shape[2], grad.shape[3], spatial_scales, sampling_ratio, "avg", aligned, canonical_size, canonical_level
    )
    shapes = [(images, grad.shape[1], *size) for size in zip(sizes[::2], sizes[1::2], strict=True)]
    grads = [grad.new_zeros(shape, dtype=dtype) for shape in shapes]
    for group in _groups(rois.float(), batch_indices, shapes, options):
        rows, columns = group.rows.matrix(dtype), group.columns.matrix(dtype)
        across = _product("kih,kcij->kchj", rows, grad[group.boxes].to(dtype))
        grads[group.level][group.image] += _product("kchj,kjw->chw", across, columns)
    return [part.to(grad.dtype) for part in grads]


@roi_align_backward.register_fake
def _(grad: Tensor, rois: Tensor, batch_indices: Tensor, images: int, sizes: Sequence[int], *_: Any) -> list[Tensor]:
    return [grad.new_empty((images, grad.shape[1], *size)) for size in zip(sizes[::2], sizes[1::2], strict=True)]


@torch.library.custom_op("edgeseg::roi_align_max_backward", mutates_args=())
def roi_align_max_backward(
    grad: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    features: Sequence[Tensor],
    sampling_ratio: int,
    aligned: bool,
    spatial_scales: Sequence[float],
    canonical_size: float,
    canonical_level: int,
) -> list[Tensor]:
    """Gradients of the feature maps from that of the output, max mode: each bin's goes to its largest weighted neighbour."""
    dtype = _compute_type(grad)
    options = RoiAlignOptions(
        grad.shape[2], grad.shape[3], spatial_scales, sampling_ratio, "max", aligned, canonical_size, canonical_level
    )
    grads = [feature.new_zeros(feature.shape, dtype=dtype) for feature in features]
    for group in _groups(rois.float(), batch_indices, [feature.shape for feature in features], options):
        image, plane = features[group.level][group.image].to(dtype), grads[group.level][group.image].flatten(1)
        for part, rows, columns in _portions(group, image.shape[0]):
            best = _weighted(image, rows, columns).argmax(-1)  # (k, C, oh, ow)
            indices, weights = (item[:, None].expand(-1, best.shape[1], -1, -1, -1) for item in _pixels(rows, columns))
            at = indices.gather(-1, best[..., None])[..., 0]
            share = grad[group.boxes[part]].to(dtype) * weights.gather(-1, best[..., None])[..., 0].to(dtype)
            plane.scatter_add_(1, at.transpose(0, 1).flatten(1), share.transpose(0, 1).flatten(1))
    return [part.to(grad.dtype) for part in grads]


@roi_align_max_backward.register_fake
def _(grad: Tensor, rois: Tensor, batch_indices: Tensor, features: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [feature.new_empty(feature.shape, dtype=grad.dtype) for feature in features]


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rois, images, features, _, _, ratio, ctx.mode, aligned, scales, size, level = inputs
    ctx.options = (ratio, aligned, scales, size, level)
    ctx.sizes = (features[0].shape[0], [side for feature in features for side in feature.shape[2:]])
    # Only the maximum depends on the features' values.
    ctx.save_for_backward(rois, images, *(features if ctx.mode == "max" else ()))


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, images, *features = ctx.saved_tensors
    if ctx.mode == "max":
        grads = roi_align_max_backward(grad, rois, images, features, *ctx.options)
    else:
        grads = roi_align_backward(grad, rois, images, *ctx.sizes, *ctx.options)
    return None, None, grads, *[None] * 8


roi_align.register_autograd(_backward, setup_context=_context)
