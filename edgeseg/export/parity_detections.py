"""Two lists of detections that should be the same: equal scores may come in another order, so they are matched first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORE_TOLERANCE = 1e-3
IOU = 0.99
_LEAST_SCORE = 0.01  # below it rows come and go with the last bits of a float


def match_detections(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Match rows of the same class, best overlap first come.

    Args:
        found, expected: boxes (1, D, 4), scores (1, D), classes (1, D) and, if both have them, masks (1, D, m, m); D may differ.

    Returns:
        The largest difference of a score or a mask's probability among matched rows, and the share of expected rows with a
        score above 0.01 that found a partner with IoU > 0.99 and a score within 1e-3; 1 where there are none.
    """
    wanted = np.flatnonzero(expected["scores"][0] > _LEAST_SCORE)
    if not wanted.size:
        return 0.0, 1.0
    overlaps = iou(expected["boxes"][0][wanted], found["boxes"][0])
    same = expected["classes"][0][wanted][:, None] == found["classes"][0][None]
    apart = np.abs(expected["scores"][0][wanted][:, None] - found["scores"][0][None])
    fit = (overlaps > IOU) & same & (apart <= SCORE_TOLERANCE)
    error, matched, free = 0.0, 0, np.ones(fit.shape[1], bool)
    for row, index in enumerate(wanted):
        partners = np.flatnonzero(fit[row] & free)
        if not partners.size:
            continue
        partner = partners[np.argmax(overlaps[row, partners] - apart[row, partners])]
        free[partner] = False
        matched += 1
        error = max(error, float(apart[row, partner]), _masks_apart(found, expected, int(partner), int(index)))
    return error, matched / wanted.size


def _masks_apart(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], one: int, other: int) -> float:
    if "masks" not in found or "masks" not in expected:
        return 0.0
    return float(np.abs(found["masks"][0, one] - expected["masks"][0, other]).max())


def iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4), x1, y1, x2, y2; 0 for two empty boxes."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
