"""C++ kernels that make instances and segments of a network's outputs, at a picture's size.

As in ``edgeseg.native``: they release the GIL, take ``threads``, give the same result for any number of them, and raise
``ValueError`` on a wrong shape or dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.native import _kernels

Maps = NDArray[np.float32]
Masks = NDArray[np.uint8]


def paste_masks(
    masks: Maps, boxes: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.5, *, threads: int = 1
) -> Masks:
    """Masks of boxes at the size of a picture: (D, H, W) uint8, 1 where the probability exceeds ``threshold``.

    Args:
        masks: (D, h, w) float32, probabilities over each box.
        boxes: (D, 4) float32, x1, y1, x2, y2 in pixel edges; they may reach out of the picture. An empty or non-finite box
            gives an empty mask.
        size: (H, W).

    A pixel takes the mask's value at its centre, bilinear between cells and 0 beyond them: Detectron2's rule, which is
    ``grid_sample(align_corners=False, padding_mode="zeros")``; torchvision rounds boxes to whole pixels first.
    """
    out = np.zeros((len(masks), *size), np.uint8)
    _kernels.paste_masks(np.ascontiguousarray(masks), np.ascontiguousarray(boxes), float(threshold), out, threads)
    return out


@dataclass(frozen=True)
class MergedIds:
    """A partition of a picture.

    Attributes:
        ids: (H, W) int32, 0 is void.
        things: the id of each instance in order, 0 if dropped.
        stuff: the id of each stuff class in order, 0 if absent or dropped.
    """

    ids: NDArray[np.int32]
    things: list[int]
    stuff: list[int]


def merge_panoptic(
    masks: Maps,
    boxes: NDArray[np.float32],
    semantic: NDArray[np.uint8],
    stuff: int,
    *,
    threshold: float,
    overlap: float,
    stuff_area: int,
    threads: int = 1,
) -> MergedIds:
    """Panoptic FPN's merging of instances, best first, and a label map.

    Args:
        masks, boxes: as in ``paste_masks``.
        semantic: (H, W) uint8, 0 where there is no stuff, s for the s-th of ``stuff`` classes. Its size is the picture's.
        threshold: probability above which a pixel belongs to a mask.
        overlap: an instance is dropped when a smaller share of its mask is free of better ones.
        stuff_area: a stuff class with fewer free pixels is dropped.
    """
    ids = np.empty(semantic.shape, np.int32)
    things, others = _kernels.merge_panoptic(
        np.ascontiguousarray(masks),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(semantic),
        stuff,
        float(threshold),
        float(overlap),
        int(stuff_area),
        ids,
        threads,
    )
    return MergedIds(ids, things, others)


@dataclass(frozen=True)
class QueryMasks:
    """Masks of Q queries.

    Attributes:
        masks: (Q, H, W) uint8.
        areas: (Q) int64, pixels.
        boxes: (Q, 4) float32, tight, in pixel edges; zeros for an empty mask.
        confidence: (Q) float64, the mean probability of the mask's pixels; 0 for an empty mask.
    """

    masks: NDArray[np.uint8]
    areas: NDArray[np.int64]
    boxes: NDArray[np.float32]
    confidence: NDArray[np.float64]


def query_masks(
    logits: Maps, size: tuple[int, int], steps: tuple[float, float], cut: float = 0.0, *, threads: int = 1
) -> QueryMasks:
    """Masks at ``size`` = (H, W) where the bilinearly upsampled logits (Q, h, w) exceed ``cut``.

    ``steps``: cells of the map from one pixel to the next, down and across; h / H and w / W where the map covers the picture.
    """
    shape = (len(logits), *size)
    masks, areas = np.empty(shape, np.uint8), np.empty(shape[:2], np.int32)
    spans, sums = np.empty((*shape[:2], 2), np.int32), np.empty(shape[:2], np.float64)
    _kernels.query_masks(
        np.ascontiguousarray(logits), float(steps[0]), float(steps[1]), float(cut), masks, areas, spans, sums, threads
    )
    totals = areas.sum(axis=1, dtype=np.int64)
    confidence = sums.sum(axis=1) / np.maximum(totals, 1)
    return QueryMasks(masks, totals, _boxes_of_spans(areas > 0, spans), confidence)


def _boxes_of_spans(filled: NDArray[np.bool_], spans: NDArray[np.int32]) -> NDArray[np.float32]:
    """Tight boxes (Q, 4) from what each row holds: (Q, H) whether any pixel, (Q, H, 2) the first and the one after the last."""
    height = filled.shape[1]
    left = np.where(filled, spans[..., 0], np.iinfo(np.int32).max).min(axis=1)
    top, bottom = filled.argmax(axis=1), height - filled[:, ::-1].argmax(axis=1)
    boxes = np.stack([left, top, spans[..., 1].max(axis=1), bottom], axis=1).astype(np.float32)
    boxes[~filled.any(axis=1)] = 0
    return boxes


@dataclass(frozen=True)
class QueryWinners:
    """Which query each pixel belongs to.

    Attributes:
        winners: (H, W) int32, 1 + the query of the greatest score times probability (the first of equals), 0 where the pixel
            is not in that query's own mask.
        won, covered, kept: (Q) int64, pixels where the query wins, where its own mask is, where both hold.
    """

    winners: NDArray[np.int32]
    won: NDArray[np.int64]
    covered: NDArray[np.int64]
    kept: NDArray[np.int64]


def query_argmax(
    logits: Maps,
    scores: NDArray[np.float32],
    size: tuple[int, int],
    steps: tuple[float, float],
    cut: float = 0.0,
    *,
    threads: int = 1,
) -> QueryWinners:
    """The best query of each pixel, Q at least 1, without ever holding (Q, H, W); arguments as in ``query_masks``, scores (Q)."""
    winners = np.empty(size, np.int32)
    logits, scores = np.ascontiguousarray(logits), np.ascontiguousarray(scores)
    counts = _kernels.query_argmax(logits, scores, float(steps[0]), float(steps[1]), float(cut), winners, threads)
    return QueryWinners(winners, *(np.array(count, np.int64) for count in counts))
