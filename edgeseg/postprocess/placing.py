"""From pixels of the network's input to pixels of the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.scene import Placement

Boxes = NDArray[np.float32]


def boxes_on_frame(boxes: Boxes, placement: Placement) -> Boxes:
    """Boxes (D, 4), x1, y1, x2, y2 in pixels of the input, in pixels of the frame; not clipped."""
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    return np.asarray(boxes / scale, np.float32)


def clip_boxes(boxes: Boxes, frame: tuple[int, int]) -> Boxes:
    """Boxes (D, 4) cut at the edges of a frame (H, W)."""
    height, width = frame
    return np.clip(boxes, 0, np.array([width, height] * 2, np.float32))


def points_on_frame(points: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Points (D, K, 3), x, y in pixels of the input and a score, in pixels of the frame."""
    return np.asarray(points / np.array([placement.scale_x, placement.scale_y, 1.0]), np.float32)


def visible(maps: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """The part of maps (..., h, w) over the input that the frame covers, to the nearest whole cell; all of it when stretched."""
    height, width = maps.shape[-2:]
    step_y, step_x = map_steps(maps.shape, placement)
    rows, columns = round(placement.frame[0] * step_y), round(placement.frame[1] * step_x)
    return maps[..., : min(max(1, rows), height), : min(max(1, columns), width)]


def map_steps(shape: tuple[int, ...], placement: Placement) -> tuple[float, float]:
    """Cells of a map (..., h, w) over the input from one pixel of the frame to the next, down and across."""
    height, width = placement.input
    return placement.scale_y * shape[-2] / height, placement.scale_x * shape[-1] / width
