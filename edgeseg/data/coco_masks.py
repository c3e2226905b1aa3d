"""COCO's outlines (polygons and run lengths) as masks, with all that may be wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FAR_PX = 65536
"""Corners further away are nonsense, and an outline between them would fill the memory."""

Mask = NDArray[np.uint8]


class BadOutlineError(ValueError):
    """An outline that encloses nothing, in words for a list of problems."""


def decode_outline(outline: Any, height: int, width: int) -> Mask:
    """(H, W) uint8, 0 or 1, of a `segmentation`: polygons, or run lengths, compressed or not (pycocotools' forms).

    Raises:
        BadOutlineError: none, polygons of fewer than three points, run lengths of another size or sum.
    """
    if isinstance(outline, dict):
        return _decode_runs(outline, height, width)
    if not isinstance(outline, list) or not outline:
        raise BadOutlineError("no outline")
    polygons = [points for item in outline if (points := _polygon(item)) is not None]
    if not polygons:
        raise BadOutlineError("polygon of fewer than 3 points")
    from pycocotools import mask as coco_mask

    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return _decode_counts(_decompress(runs["counts"]), height, width)


def _polygon(item: Any) -> list[float] | None:
    # pycocotools takes four numbers for a box, and an odd one is half a point.
    if not isinstance(item, list) or len(item) < 6 or len(item) % 2:
        return None
    if any(type(value) not in (int, float) for value in item):
        return None
    return item if all(abs(value) < _FAR_PX for value in item) else None  # NaN is not smaller


def _decode_runs(outline: dict[str, Any], height: int, width: int) -> Mask:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise BadOutlineError("run lengths of another size than the picture")
    if isinstance(counts, list):
        return _decode_counts(counts, height, width)
    if not isinstance(counts, str | bytes):
        raise BadOutlineError("run lengths without counts")
    return _decode_counts(_decompress(counts), height, width)


def _decompress(counts: str | bytes) -> list[int]:
    """Run lengths from COCO's string: five bits a character from 48 on, bit 5 "more follows"; from the fourth, differences."""
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        part = byte - 48
        if not 0 <= part < 64 or shift > 30:
            raise BadOutlineError("run lengths that are no COCO string")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _decode_counts(counts: list[Any], height: int, width: int) -> Mask:
    """Alternating runs of 0 and 1, down the columns. pycocotools leaves unset memory where they are too short."""
    if any(not isinstance(value, int) or value < 0 for value in counts) or sum(counts) != height * width:
        raise BadOutlineError("run lengths that do not fill the picture")
    values = np.arange(len(counts), dtype=np.uint8) & 1
    return np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T)
