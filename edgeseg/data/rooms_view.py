"""Rooms: the camera, and the buffers that rays fill.

World axes: x right, y up from the floor, z away from the wall behind the camera; metres. Camera axes: x right, y down,
z forward. All rays have length 1 along the camera's z, so that a ray's parameter is depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Window = tuple[slice, slice]
NEAR_M = 0.15


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        width, height: pixels.
        focal: px, the same both ways; the principal point is the middle of the picture.
        place: (3) world position.
        yaw, pitch, roll: radians; right, down and clockwise.
    """

    width: int
    height: int
    focal: float
    place: tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float

    @cached_property
    def axes(self) -> Floats:
        """(3, 3): columns are the camera's x, y and z axes in the world."""
        y, p, r = self.yaw, self.pitch, self.roll
        right = np.array([cos(y), 0, -sin(y)])
        down = -np.array([sin(y) * sin(p), cos(p), cos(y) * sin(p)])
        forward = np.array([sin(y) * cos(p), -sin(p), cos(y) * cos(p)])
        turned = cos(r) * right + sin(r) * down, cos(r) * down - sin(r) * right
        return np.stack([*turned, forward], axis=1).astype(np.float32)

    @cached_property
    def rays(self) -> Floats:
        """(3, H, W) world directions through the centres of the pixels."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) / self.focal
        y = (np.arange(self.height, dtype=np.float32) + 0.5 - self.height / 2) / self.focal
        a = self.axes
        rows = a[:, 1, None] * y + a[:, 2, None]
        return np.asarray(rows[:, :, None] + (a[:, 0, None] * x)[:, None, :], np.float32)

    @cached_property
    def squares(self) -> Floats:
        """(H, W) squared lengths of the rays."""
        return np.asarray((self.rays**2).sum(axis=0), np.float32)

    @property
    def gravity(self) -> tuple[float, float, float]:
        """Unit vector downwards in camera axes."""
        x, y, z = -self.axes[1]
        return float(x), float(y), float(z)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (N, 3) as (N, 3): x, y in pixel edges and depth in metres; meaningless behind the camera."""
        local = (np.asarray(points, np.float64) - self.place) @ self.axes
        depth = np.maximum(local[:, 2], 1e-6)
        x = local[:, 0] / depth * self.focal + self.width / 2
        y = local[:, 1] / depth * self.focal + self.height / 2
        return np.stack([x, y, local[:, 2]], axis=1)

    def window(self, points: NDArray[np.floating], radius: float) -> Window | None:
        """Rows and columns that balls of ``radius`` around world points (N, 3), and what lies between, may cover."""
        local = (np.asarray(points, np.float64) - self.place) @ self.axes
        near = local[:, 2].min() - radius
        if local[:, 2].max() + radius < NEAR_M:
            return None
        if near < NEAR_M:
            return slice(0, self.height), slice(0, self.width)
        bounds = []
        for axis, side in ((1, self.height), (0, self.width)):
            ends = np.stack([local[:, axis] - radius, local[:, axis] + radius])
            over = np.stack([ends / (local[:, 2] - radius), ends / (local[:, 2] + radius)]) * self.focal + side / 2
            low, high = max(0, int(np.floor(over.min()))), min(side, int(np.ceil(over.max())) + 1)
            if low >= high:
                return None
            bounds.append(slice(low, high))
        return bounds[0], bounds[1]


@dataclass
class Buffers:
    """What the nearest surface of each pixel is.

    Attributes:
        depth: (H, W) float32 m.
        thing: (H, W) int16, index of the thing or -1.
        label: (H, W) uint8 class.
        normal: (3, H, W) float32, world, unit.
        albedo: (3, H, W) float32, B, G, R in 0..1.
        glow: (H, W) float32, light of its own, as a share of the albedo.
    """

    depth: Floats
    thing: NDArray[np.int16]
    label: NDArray[np.uint8]
    normal: Floats
    albedo: Floats
    glow: Floats

    @classmethod
    def blank(cls, width: int, height: int) -> Buffers:
        """Nothing seen yet: depth is infinite."""
        shape = height, width
        return cls(
            np.full(shape, np.inf, np.float32),
            np.full(shape, -1, np.int16),
            np.zeros(shape, np.uint8),
            np.zeros((3, *shape), np.float32),
            np.zeros((3, *shape), np.float32),
            np.zeros(shape, np.float32),
        )
