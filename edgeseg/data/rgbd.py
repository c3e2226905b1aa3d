"""Depth frames: from a camera's own encoding to metres, and from metres to the planes that networks read.

Depth is (H, W) float32 in metres along the camera's axis, 0 where it is unknown. Planes are uint8, 0 where it is unknown:
    depth: ``1 + 254 * z / FAR_M``, rounded; 255 at ``FAR_M`` and beyond.
    HHA: see ``edgeseg.native.hha``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.manifest import Modality

FAR_M = 10.0
Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0)."""
Vector = tuple[float, float, float]


def pack(
    image: NDArray[np.uint8], depth: NDArray[np.float32], intrinsics: Intrinsics, modality: Modality, gravity: Vector | None = None
) -> NDArray[np.uint8]:
    """A frame of the modality's channels: (H, W, 3) "rgb" or "hha", (H, W, 4) "rgbd", (H, W, 6) "rgb-hha"; BGR comes first.

    Args:
        image: (H, W, 3) uint8 BGR.
        depth: (H, W) float32 m, 0 unknown; registered to the image.
        gravity: downwards in camera axes (x right, y down, z forward); estimated from the depth when None.

    Raises:
        DataError: shapes or types do not fit.
    """
    _check(image, depth)
    if modality == "rgb":
        return image
    if modality == "rgbd":
        return np.dstack([image, depth_plane(depth)])
    raise DataError(f"modality {modality!r}", "rgb, rgbd, hha or rgb-hha")


def depth_plane(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) uint8 of depth in metres; see the module."""
    known = np.isfinite(depth) & (depth > 0)
    scaled = 1.5 + np.minimum(np.where(known, depth, 0), FAR_M) * np.float32(254 / FAR_M)
    return np.where(known, scaled, 0).astype(np.uint8)


def plane_depth(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Metres (H, W) float32 of a depth plane, within ``FAR_M`` / 508; 0 where unknown."""
    return np.where(plane > 0, (plane.astype(np.float32) - 1) * np.float32(FAR_M / 254), 0).astype(np.float32)


def _check(image: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"image: {image.shape} {image.dtype}", "(H, W, 3) uint8 in BGR order")
    if depth.shape != image.shape[:2] or depth.dtype != np.float32:
        raise DataError(f"depth: {depth.shape} {depth.dtype}", f"{image.shape[:2]} float32 metres", "decode it, and register it")
