"""Plain numpy version of ``edgeseg.native.hha`` in float64: what the C++ is tested against, and the definition of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, cos, radians, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from edgeseg.native.hha import NEAR_M, RADIUS, TALL_M

FARTHEST_M = 1000.0
SAMPLES = 20_000
GROUND = 0.01

Doubles = NDArray[np.float64]


def known(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) where depth is a distance."""
    return np.asarray((depth > 0) & (depth < FARTHEST_M))


def _box(plane: Doubles, radius: int) -> Doubles:
    """Sums over windows of 2 radius + 1 pixels a side; what is outside counts 0."""
    for axis in (0, 1):
        pads = [(radius + 1, radius) if dimension == axis else (0, 0) for dimension in (0, 1)]
        sums = np.cumsum(np.pad(plane, pads), axis=axis)
        low = [slice(None, -2 * radius - 1) if dimension == axis else slice(None) for dimension in (0, 1)]
        high = [slice(2 * radius + 1, None) if dimension == axis else slice(None) for dimension in (0, 1)]
        plane = sums[tuple(high)] - sums[tuple(low)]
    return plane


def normals(depth: NDArray[np.float32], intrinsics: Sequence[float], radius: int = RADIUS) -> Doubles:
    """(3, H, W): least squares of 1 / z = q0 + a u + b v over each window; 0 where too little of it is known."""
    fx, fy, cx, cy = intrinsics
    rows, columns = np.indices(depth.shape).astype(np.float64)
    seen = known(depth)
    one = seen.astype(np.float64)
    inverse = np.where(seen, 1 / np.where(seen, depth, 1).astype(np.float64), 0)
    u, v = columns - depth.shape[1] / 2, rows - depth.shape[0] / 2
    n, su, sv, sq = (_box(plane, radius) for plane in (one, one * u, one * v, inverse))
    suu, suv, svv = (_box(plane, radius) for plane in (one * u * u, one * u * v, one * v * v))
    squ, sqv = _box(inverse * u, radius), _box(inverse * v, radius)
    count = np.maximum(n, 1)
    cuu, cuv, cvv = suu - su * su / count, suv - su * sv / count, svv - sv * sv / count
    cqu, cqv = squ - sq * su / count, sqv - sq * sv / count
    det = cuu * cvv - cuv * cuv
    good = seen & (n >= (radius + 1) ** 2) & (det > 0.05 * n * n)
    scale = 1 / np.where(good, det, 1)
    a, b = (cqu * cvv - cqv * cuv) * scale, (cqv * cuu - cqu * cuv) * scale
    at_zero = sq / count - a * su / count - b * sv / count
    at_axis = at_zero + a * (cx - depth.shape[1] / 2) + b * (cy - depth.shape[0] / 2)
    found = np.stack([a * fx, b * fy, at_axis])
    length = np.linalg.norm(found, axis=0)
    return np.where(good & (length > 0), found / np.where(length > 0, length, 1), 0)


def _grid(shape: tuple[int, ...]) -> tuple[slice, slice]:
    step = max(1, ceil(sqrt(shape[0] * shape[1] / SAMPLES)))
    return slice(step // 2, None, step), slice(step // 2, None, step)


def gravity(found: Doubles) -> Doubles:
    """Downwards (3) from normals (3, H, W): the smallest eigenvector of N_across N_across^T - N_along N_along^T, repeatedly."""
    rows, columns = _grid(found.shape[1:])
    sampled = found[:, rows, columns].reshape(3, -1)
    sampled = sampled[:, (sampled != 0).any(axis=0)]
    down = np.array([0.0, 1.0, 0.0])
    for limit in [radians(45)] * 5 + [radians(15)] * 5:
        cosine = np.abs(down @ sampled)
        along, across = sampled[:, cosine > cos(limit)], sampled[:, cosine < sin(limit)]
        if along.shape[1] + across.shape[1] == 0:
            break
        new = np.linalg.eigh(across @ across.T - along @ along.T)[1][:, 0]
        down = new if new @ down >= 0 else -new
    return down


def encode(
    depth: NDArray[np.float32], intrinsics: Sequence[float], down: Sequence[float] | None = None, radius: int = RADIUS
) -> tuple[NDArray[np.uint8], Doubles]:
    """As ``hha.encode``."""
    fx, fy, cx, cy = intrinsics
    found = normals(depth, intrinsics, radius)
    direction = gravity(found) if down is None else np.asarray(down, np.float64) / np.linalg.norm(down)
    rows, columns = np.indices(depth.shape)
    seen = known(depth)
    z = np.where(seen, depth, 1).astype(np.float64)
    height = -z * (direction[0] * (columns - cx) / fx + direction[1] * (rows - cy) / fy + direction[2])
    grid = _grid(depth.shape)
    heights = np.sort(height[grid][seen[grid]])
    ground = heights[int(GROUND * (len(heights) - 1))] if len(heights) else 0.0
    angle = np.arccos(np.clip(np.tensordot(direction, found, 1), -1, 1)) / np.pi
    shares = [np.minimum(NEAR_M / z, 1), np.clip((height - ground) / TALL_M, 0, 1), angle]
    masks = [seen, seen, seen & (found != 0).any(axis=0)]
    planes = [np.where(mask, share * 254 + 1.5, 0) for mask, share in zip(masks, shares, strict=True)]
    return np.stack(planes, axis=-1).astype(np.uint8), direction
