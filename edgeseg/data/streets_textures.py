"""Procedural pictures for the street scenes: facades, tree crowns, ground, sky. Each depends on its generator alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

FACADE_PX_PER_M = 26
GROUND_TILE_PX, GROUND_TILE_M = 512, 14.0
_WALLS = (  # B, G, R: brick, render, stone, concrete
    (58, 70, 128), (66, 92, 150), (84, 128, 172), (118, 150, 184), (206, 214, 220),
    (190, 206, 222), (150, 164, 172), (128, 134, 138), (88, 92, 96),
)  # fmt: skip
_BRIGHT = (
    (40, 40, 190), (150, 60, 20), (40, 130, 30), (30, 160, 220), (130, 40, 110), (30, 30, 30), (220, 220, 220), (140, 120, 20),
)  # fmt: skip


def smooth_noise(rng: np.random.Generator, height: int, width: int, octaves: Sequence[int]) -> NDArray[np.float32]:
    """(height, width) float32 noise of mean about 0, within -1..1; ``octaves`` are grid sizes from coarse to fine."""
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    for cells in octaves:
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        weights, weight = weights + weight, weight * 0.7
    return np.asarray(total / weights, np.float32)


def _seamless_noise(rng: np.random.Generator, size: int, octaves: Sequence[int]) -> NDArray[np.float32]:
    """``smooth_noise`` that continues over its own edges; each octave must divide ``size``."""
    total = np.zeros((size, size), np.float32)
    for cells in octaves:
        grid = cv2.copyMakeBorder(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), 1, 1, 1, 1, cv2.BORDER_WRAP)
        cell = size // cells
        wide = cv2.resize(grid, (size + 2 * cell, size + 2 * cell), interpolation=cv2.INTER_LINEAR)
        total += wide[cell:-cell, cell:-cell] / len(octaves)
    return total


def facade(rng: np.random.Generator, width_m: float, floors: int, lit: float) -> list[Picture]:
    """A house front as a pyramid of halved pictures, (h, w, 3) uint8 BGR.

    Args:
        rng: source of every choice.
        width_m: width in metres.
        floors: number of storeys of about 3 m.
        lit: share of the windows with light behind them (dusk).
    """
    width, storey = round(width_m * FACADE_PX_PER_M), round(rng.uniform(2.8, 3.4) * FACADE_PX_PER_M)
    height = storey * floors + round(0.6 * FACADE_PX_PER_M)
    wall = np.clip(np.array(_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.75, 1.15) + rng.normal(0, 9, 3), 10, 245)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = wall
    if rng.random() < 0.5:
        for y in range(0, height, 5):
            cv2.line(picture, (0, y), (width, y), tuple(wall * 0.86), 1)
    _windows(rng, picture, storey, floors, lit)
    if rng.random() < 0.6:
        _shop(rng, picture, storey)
    else:
        _door(rng, picture, storey)
    cv2.rectangle(picture, (0, 0), (width, round(0.3 * FACADE_PX_PER_M)), tuple(wall * rng.uniform(0.6, 1.15)), -1)
    cv2.line(picture, (0, 0), (0, height), tuple(wall * 0.6), 2)
    grain = smooth_noise(rng, height, width, (5, 17)) * 12 + 5 * rng.standard_normal((height, width), dtype=np.float32)
    picture = np.clip(picture + grain[..., None], 0, 255).astype(np.uint8)
    return pyramid(picture)


def pyramid(picture: Picture, levels: int = 5) -> list[Picture]:
    """The picture and its halves, for sampling without aliasing."""
    out = [picture]
    while len(out) < levels and min(out[-1].shape[:2]) > 8:
        out.append(np.asarray(cv2.resize(out[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8))
    return out


def _glass(rng: np.random.Generator, lit: float) -> tuple[float, float, float]:
    if rng.random() < lit:
        level = rng.uniform(0.6, 1.0)
        return 120 * level, 200 * level, 250 * level
    level = rng.uniform(20, 95) if rng.random() < 0.8 else rng.uniform(120, 210)
    return level * 1.12, level, level * 0.92


def _windows(rng: np.random.Generator, picture: Picture, storey: int, floors: int, lit: float) -> None:
    width = picture.shape[1]
    columns = int(rng.integers(2, max(3, width // 48) + 1))
    band = rng.random() < 0.2
    pitch = width / columns
    w = round(pitch * (0.96 if band else rng.uniform(0.32, 0.6)))
    h = round(storey * rng.uniform(0.42, 0.68))
    frame = _bgr(rng.choice([230, 210, 60, 30]) + rng.normal(0, 8, 3))
    top = picture.shape[0] - floors * storey
    for row in range(floors):
        y = top + row * storey + (storey - h) // 2
        for column in range(columns):
            x = round((column + 0.5) * pitch) - w // 2
            cv2.rectangle(picture, (x - 2, y - 2), (x + w + 2, y + h + 2), frame, -1)
            cv2.rectangle(picture, (x, y), (x + w, y + h), _glass(rng, lit), -1)
            if not band:
                cv2.line(picture, (x + w // 2, y), (x + w // 2, y + h), frame, 2)
                cv2.line(picture, (x, y + h // 2), (x + w, y + h // 2), frame, 1)
                cv2.rectangle(picture, (x - 4, y + h + 3), (x + w + 4, y + h + 6), (150, 155, 158), -1)


def _shop(rng: np.random.Generator, picture: Picture, storey: int) -> None:
    height, width = picture.shape[:2]
    top = height - storey
    colour = _bgr(np.array(_BRIGHT[rng.integers(len(_BRIGHT))]) * rng.uniform(0.6, 1.1))
    cv2.rectangle(picture, (0, top), (width, height), _bgr(np.array(colour) * 0.6), -1)
    panes = int(rng.integers(2, 5))
    for pane in range(panes):
        x0, x1 = round(width * (pane + 0.06) / panes), round(width * (pane + 0.94) / panes)
        y0, y1 = top + storey // 4, height - storey // 8
        cv2.rectangle(picture, (x0, y0), (x1, y1), _glass(rng, 0.3), -1)
        for _ in range(4):
            gx, gy = int(rng.integers(x0, x1)), int(rng.integers(y0, y1))
            far = min(gx + int(rng.integers(3, 14)), x1), min(gy + int(rng.integers(3, 14)), y1)
            cv2.rectangle(picture, (gx, gy), far, _bgr(rng.uniform(20, 240, 3)), -1)
    cv2.rectangle(picture, (0, top), (width, top + storey // 4), colour, -1)
    name = "".join(chr(int(code)) for code in rng.integers(65, 91, int(rng.integers(4, 9))))
    ink = (235, 240, 240) if sum(colour) < 400 else (30, 30, 40)
    cv2.putText(picture, name, (width // 8, top + storey // 5), cv2.FONT_HERSHEY_SIMPLEX, storey / 130, ink, 2)


def _door(rng: np.random.Generator, picture: Picture, storey: int) -> None:
    height, width = picture.shape[:2]
    x, w = round(width * rng.uniform(0.1, 0.75)), round(1.0 * FACADE_PX_PER_M)
    colour = _bgr(np.array(_BRIGHT[rng.integers(len(_BRIGHT))]) * 0.7)
    cv2.rectangle(picture, (x - 3, height - round(storey * 0.75)), (x + w + 3, height), (200, 205, 208), -1)
    cv2.rectangle(picture, (x, height - round(storey * 0.7)), (x + w, height), colour, -1)


def _bgr(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    b, g, r = (float(min(max(value, 0), 255)) for value in values)
    return b, g, r


def leafy_crown(rng: np.random.Generator, size: int = 160) -> tuple[Picture, Picture]:
    """Picture (size, size, 3) and mask (size, size) of a tree in leaf, trunk not included."""
    field = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(9, 16))):
        angle, reach = rng.uniform(0, 2 * pi), rng.uniform(0, 0.27) * size
        centre = int(size / 2 + reach * cos(angle)), int(size / 2 + reach * sin(angle))
        cv2.circle(field, centre, int(rng.uniform(0.12, 0.22) * size), 1.0, -1)
    field = np.asarray(cv2.GaussianBlur(field, (0, 0), size / 40), np.float32)
    clumps, leaves = smooth_noise(rng, size, size, (12, 24)), smooth_noise(rng, size, size, (40, 80))
    mask = np.where(field + 0.35 * leaves + 0.25 * clumps > 0.5, np.uint8(255), np.uint8(0))
    season = rng.random()
    base = np.array((38, 92, 62)) if season < 0.6 else np.array((36, 70, 80)) if season < 0.8 else np.array((32, 110, 130))
    base = base * rng.uniform(0.6, 1.25) + rng.normal(0, 8, 3)
    rise = np.linspace(0.28, -0.28, size, dtype=np.float32)[:, None]
    light = 1 + 0.45 * clumps + 0.5 * leaves + rise
    return np.clip(base * light[..., None], 0, 255).astype(np.uint8), mask


def bare_crown(rng: np.random.Generator, size: int = 192) -> tuple[Picture, Picture]:
    """Picture (size, size, 3) and mask (size, size) of a tree in winter, rooted at the bottom's middle."""
    mask = np.zeros((size, size), np.uint8)
    turns = rng.normal((-0.5, 0.05, 0.5), 0.2, (512, 3)).tolist()
    shrinks = rng.uniform(0.6, 0.78, (512, 3)).tolist()
    stack, number = [(size / 2, size - 1.0, -pi / 2, size * 0.26, 6.0)], 0
    while stack:
        x, y, angle, length, width = stack.pop()
        x1, y1 = x + length * cos(angle), y + length * sin(angle)
        cv2.line(mask, (int(x), int(y)), (int(x1), int(y1)), 255, max(1, round(width)))
        if length > size * 0.042:
            for turn, shrink in zip(turns[number % 512], shrinks[number % 512], strict=True):
                stack.append((x1, y1, angle + turn, length * shrink, width * 0.62))
            number += 1
    mask = np.asarray(cv2.dilate(mask, np.ones((2, 2), np.uint8)), np.uint8)
    base = np.array((46, 56, 66)) * rng.uniform(0.6, 1.3)
    picture = np.clip(base + 9 * rng.standard_normal((size, size, 1), dtype=np.float32), 0, 255).astype(np.uint8)
    return picture, mask


def hedge(rng: np.random.Generator) -> list[Picture]:
    """A clipped hedge as a pyramid of pictures, 1.5 m by 8 m at 40 px a metre."""
    noise = smooth_noise(rng, 64, 320, (40, 80, 160))
    base = np.array((36, 84, 56)) * rng.uniform(0.6, 1.2) + rng.normal(0, 6, 3)
    light = 1 + 0.7 * noise + np.linspace(0.25, -0.3, 64, dtype=np.float32)[:, None]
    return pyramid(np.clip(base * light[..., None], 0, 255).astype(np.uint8))


def ground_detail(rng: np.random.Generator) -> Picture:
    """(512, 512) uint8 brightness of a patch of street, 128 neutral: grain, stains, cracks and mended trenches."""
    size = GROUND_TILE_PX
    tile = (
        128 + _seamless_noise(rng, size, (4, 8, 32)) * 24 + rng.uniform(5, 13) * rng.standard_normal((size, size), dtype=np.float32)
    )
    tile = np.clip(tile, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(2, 7))):
        corner, extent = rng.integers(0, size - 100, 2), rng.integers(16, 100, 2)
        level = float(rng.uniform(-16, 12))
        window = tile[corner[1] : corner[1] + extent[1], corner[0] : corner[0] + extent[0]]
        window[:] = np.clip(window.astype(np.float32) + level, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(3, 9))):
        steps = np.cumsum(rng.normal((1.5, 0), (4, 6), (30, 2)), axis=0) + rng.integers(0, size, 2)
        cv2.polylines(tile, [steps.astype(np.int32)], False, float(rng.uniform(70, 112)), 1)
    return np.asarray(tile, np.uint8)


def sky(rng: np.random.Generator, width: int, height: int, top: Sequence[float], bottom: Sequence[float], cloud: float) -> Picture:
    """(height, width, 3) uint8 sky: a gradient with clouds of strength ``cloud`` in 0..1."""
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    picture = np.array(top, np.float32) * (1 - ramp) + np.array(bottom, np.float32) * ramp
    noise = smooth_noise(rng, height, width, (4, 7, 13, 27))
    cover = np.clip((noise + cloud - 0.35) * 2.2, 0, 1)[..., None] * cloud
    shade = np.array(bottom, np.float32) * 0.5 + 125 + 40 * smooth_noise(rng, height, width, (6, 12))[..., None]
    return np.asarray(np.clip(picture * (1 - cover) + shade * cover, 0, 255), np.uint8)
