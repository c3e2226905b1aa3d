"""Rooms: solids and where rays meet them, in closed form.

A solid's ``hit`` takes the eye's position and n rays (3, n) with their squared lengths (n) and returns the ray parameters (n),
infinite where a ray misses, and a function from the indices of some rays to (normals (3, m), surface coordinates u, v (m) each
in metres).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.rooms_view import NEAR_M, Floats

Surface = tuple[Floats, Floats, Floats]
Hit = tuple[Floats, Callable[[NDArray[np.intp]], Surface]]
_NONE = np.float32(np.inf)


@dataclass(frozen=True)
class Ball:
    """A sphere; ``axis`` (unit) is what its stripes run around."""

    centre: NDArray[np.float32]
    radius: float
    axis: NDArray[np.float32]

    def bounds(self) -> tuple[Floats, float]:
        return self.centre[None], self.radius

    def hit(self, eye: Floats, rays: Floats, squares: Floats) -> Hit:
        offset = eye - self.centre
        along = offset @ rays
        inside = along * along - squares * np.float32(offset @ offset - self.radius**2)
        t = (-along - np.sqrt(np.maximum(inside, 0))) / squares
        t = np.where((inside > 0) & (t > NEAR_M), t, _NONE)

        def surface(chosen: NDArray[np.intp]) -> Surface:
            normal = (offset[:, None] + rays[:, chosen] * t[chosen]) / np.float32(self.radius)
            height = self.axis @ normal * np.float32(self.radius)
            return normal, normal[0] * np.float32(self.radius), height

        return t, surface


@dataclass(frozen=True)
class Capsule:
    """All points within ``radius`` of the segment from ``start`` to ``end``."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    radius: float

    def bounds(self) -> tuple[Floats, float]:
        return np.stack([self.start, self.end]), self.radius

    def hit(self, eye: Floats, rays: Floats, squares: Floats) -> Hit:
        axis, offset = self.end - self.start, eye - self.start
        length, reach = np.float32(axis @ axis), np.float32(axis @ offset)
        slope, along = axis @ rays, offset @ rays
        a = length * squares - slope * slope
        b = length * along - reach * slope
        c = length * np.float32(offset @ offset - self.radius**2) - reach * reach
        inside = b * b - a * c
        t = (-b - np.sqrt(np.maximum(inside, 0))) / np.maximum(a, 1e-9)
        place = reach + t * slope
        # Beyond the ends the surface is that of a ball.
        first = place <= 0
        if not (first | (place >= length)).any():
            t = np.where((inside > 0) & (t > NEAR_M), t, _NONE)
        else:
            far = eye - self.end
            along_cap = np.where(first, along, far @ rays)
            c_cap = np.where(first, np.float32(offset @ offset), np.float32(far @ far)) - np.float32(self.radius**2)
            cap = along_cap * along_cap - squares * c_cap
            t_cap = (-along_cap - np.sqrt(np.maximum(cap, 0))) / squares
            body = (place > 0) & (place < length)
            t = np.where(body, np.where(inside > 0, t, _NONE), np.where(cap > 0, t_cap, _NONE))
            t = np.where(t > NEAR_M, t, _NONE)

        def surface(chosen: NDArray[np.intp]) -> Surface:
            point = offset[:, None] + rays[:, chosen] * t[chosen]
            share = np.clip(axis @ point / length, 0, 1)
            normal = (point - axis[:, None] * share) / np.float32(self.radius)
            return normal, normal[0], share * np.sqrt(length)

        return t, surface


@dataclass(frozen=True)
class Block:
    """A cuboid on its base, turned by ``angle`` about the vertical.

    Attributes:
        base: (3) centre of the lower face.
        size: width, height, depth in metres.
    """

    base: NDArray[np.float32]
    size: tuple[float, float, float]
    angle: float

    @property
    def turn(self) -> Floats:
        """(3, 3) from world to the block's own axes."""
        c, s = cos(self.angle), sin(self.angle)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)

    def bounds(self) -> tuple[Floats, float]:
        half_w, half_d = self.size[0] / 2, self.size[2] / 2
        corners = [[x, y, z] for x in (-half_w, half_w) for y in (0, self.size[1]) for z in (-half_d, half_d)]
        return np.array(corners, np.float32) @ self.turn + self.base, 0.0

    def hit(self, eye: Floats, rays: Floats, squares: Floats) -> Hit:
        half = np.array(self.size, np.float32) / 2
        turn = self.turn
        offset = turn @ (eye - self.base) - np.array([0, half[1], 0], np.float32)
        local = turn @ rays
        local = np.where(np.abs(local) < 1e-7, np.float32(1e-7), local)
        middle, reach = -offset[:, None] / local, half[:, None] / np.abs(local)
        near, far = middle - reach, (middle + reach).min(axis=0)
        t = near.max(axis=0)
        t = np.where((t < far) & (t > NEAR_M), t, _NONE)

        def surface(chosen: NDArray[np.intp]) -> Surface:
            axis = near[:, chosen].argmax(axis=0)
            rows = np.arange(len(chosen))
            own = np.zeros((3, len(chosen)), np.float32)
            own[axis, rows] = -np.sign(local[axis, chosen])
            point = offset[:, None] + local[:, chosen] * t[chosen] + half[:, None]
            u = np.where(axis == 0, point[2], point[0])
            v = np.where(axis == 1, point[2], point[1])
            return turn.T @ own, u, v

        return t, surface


@dataclass(frozen=True)
class Frustum:
    """An upright cylinder or cone, closed above and open below.

    Attributes:
        base: (3) centre of the lower end.
        height: metres.
        lower, upper: radii; ``upper`` 0 is a cone.
    """

    base: NDArray[np.float32]
    height: float
    lower: float
    upper: float

    def bounds(self) -> tuple[Floats, float]:
        r = max(self.lower, self.upper)
        corners = [[x, y, z] for x in (-r, r) for y in (0, self.height) for z in (-r, r)]
        return np.array(corners, np.float32) + self.base, 0.0

    def hit(self, eye: Floats, rays: Floats, squares: Floats) -> Hit:
        x, y, z = (np.float32(value) for value in eye - self.base)
        k = np.float32((self.upper - self.lower) / self.height)
        radius = np.float32(self.lower) + k * y
        a = squares - (1 + k * k) * rays[1] ** 2
        b = x * rays[0] + z * rays[2] - k * radius * rays[1]
        c = x * x + z * z - radius * radius
        inside = b * b - a * c
        root = np.sqrt(np.maximum(inside, 0))
        a = np.where(np.abs(a) < 1e-7, np.float32(1e-7), a)
        side = np.full(rays.shape[1], _NONE)
        for sign in (-1, 1):
            t = (-b + sign * root) / a
            up = y + t * rays[1]
            good = (inside > 0) & (t > NEAR_M) & (up >= 0) & (up <= self.height)
            side = np.where(good & (t < side), t, side)
        t = side
        if self.upper > 0 and y > self.height:
            lid = (np.float32(self.height) - y) / np.minimum(rays[1], -1e-7)
            inner = (x + lid * rays[0]) ** 2 + (z + lid * rays[2]) ** 2 < self.upper**2
            t = np.where(inner & (lid < side), lid, side)

        def surface(chosen: NDArray[np.intp]) -> Surface:
            px, pz = x + rays[0, chosen] * t[chosen], z + rays[2, chosen] * t[chosen]
            up = y + rays[1, chosen] * t[chosen]
            r = np.maximum(np.hypot(px, pz), 1e-6)
            tilt = 1 / np.sqrt(1 + k * k)
            top = t[chosen] < side[chosen]
            normal = np.stack([np.where(top, 0, px / r * tilt), np.where(top, 1, -k * tilt), np.where(top, 0, pz / r * tilt)])
            return normal.astype(np.float32), np.where(top, r, px), np.where(top, r, up)

        return t, surface


Solid = Ball | Capsule | Block | Frustum
