"""HHA: three planes of a depth frame that mean the same whatever way the camera is held (Gupta et al., ECCV 2014, section 2.1).

Each is uint8, 0 where it is unknown, else ``1 + 254 * share`` rounded, with ``share`` in 0..1:
    horizontal disparity: ``NEAR_M / z``; 1 for what is nearer.
    height above ground: ``height / TALL_M``, within 0..1; the ground is what 1% of the points lie below.
    angle of the surface with gravity: ``angle / 180``: 0 floors, 90 walls, 180 ceilings, seen from above or below alike.

Normals are planes fitted to inverse depth (which is affine in the pixel's place on any plane) over a square window. Gravity is
found by the alternation of Gupta et al., CVPR 2013, section 3.1: from the camera's y axis on, 5 steps with 45 and 5 with 15
degrees, each taking the direction that is most nearly along the normals close to it and at a right angle to those across it.
Gravity and ground are found from up to 20,000 pixels on an even grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.native import _kernels

NEAR_M = 1.0
TALL_M = 3.0
RADIUS = 5
"""Half a window's side, px: 11 by 11 pixels."""


def encode(
    depth: NDArray[np.float32], intrinsics: Sequence[float], gravity: Sequence[float] | None = None, *, radius: int = RADIUS
) -> tuple[NDArray[np.uint8], tuple[float, float, float]]:
    """The planes (H, W, 3) uint8, and gravity as a unit vector downwards in camera axes (x right, y down, z forward).

    Args:
        depth: (H, W) float32, metres along the optical axis; unknown where it is not in 0..1000.
        intrinsics: fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0).
        gravity: downwards, any length; estimated when None.
        radius: of the window of normals, 1..64 px.

    Where depth is unknown all planes are 0; only the angle is where fewer than (radius + 1)^2 pixels of the window are known, as
    many as in the corner of a whole picture, or all of them in one line.

    Raises:
        ValueError: a wrong shape, type or value; names what arrived.
    """
    planes = np.empty((*depth.shape, 3), np.uint8)
    down = None if gravity is None else [float(value) for value in gravity]
    found = _kernels.hha(np.ascontiguousarray(depth), [float(value) for value in intrinsics], down, radius, planes)
    return planes, (found[0], found[1], found[2])


def normals(depth: NDArray[np.float32], intrinsics: Sequence[float], *, radius: int = RADIUS) -> NDArray[np.float32]:
    """Unit normals (3, H, W) float32 in camera axes, pointing away from the camera; 0 where there is none. See ``encode``."""
    out = np.empty((3, *depth.shape), np.float32)
    _kernels.depth_normals(np.ascontiguousarray(depth), [float(value) for value in intrinsics], radius, out)
    return out
