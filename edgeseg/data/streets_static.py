"""Painting of what stands still: ground, buildings, trees, hedges, fences, lamps, signs and traffic lights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data import streets_textures as textures
from edgeseg.data.streets_look import Look
from edgeseg.data.streets_view import FAR_M, NEAR_M, Canvas, Colour, Point, View
from edgeseg.data.streets_world import CHUNK_M, JUNCTION_M, Item, Plan, World

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

Footprint = tuple[float, float, float]  # x, distance and length in metres of a car

_WHITE: Colour = (205, 208, 208)
_YELLOW: Colour = (70, 165, 190)
_DEPTHS = tuple(NEAR_M * (FAR_M / NEAR_M) ** (k / 27) for k in range(28))


@dataclass(frozen=True)
class Stock:
    """The pictures of one seed that painting draws on."""

    facades: tuple[list[NDArray[np.uint8]], ...]
    crowns: tuple[list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], ...]
    bare: bool
    hedge: list[NDArray[np.uint8]]
    ground: NDArray[np.uint8]
    sky: NDArray[np.uint8]

    @classmethod
    def make(cls, rng: np.random.Generator, plan: Plan, look: Look, width: int, horizon: int) -> Stock:
        grow = textures.bare_crown if plan.bare else textures.leafy_crown
        return cls(
            tuple(textures.facade(rng, rng.uniform(6, 11), int(rng.integers(2, 6)), look.lit) for _ in range(7)),
            tuple(crown for _ in range(2) for crown in _both_ways(*grow(rng))),
            plan.bare,
            textures.hedge(rng),
            textures.ground_detail(rng),
            _with_slot(textures.sky(rng, width, max(horizon, 2), look.sky_top, look.sky_bottom, look.cloud), SKY),
        )


def _with_slot(picture: NDArray[np.uint8], slot: int) -> NDArray[np.uint8]:
    out = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA), np.uint8)
    out[..., 3] = slot
    return out


def _both_ways(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Iterator[list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    for turned, cut in ((picture, mask), (picture[:, ::-1].copy(), mask[:, ::-1].copy())):
        yield list(zip(textures.pyramid(turned), textures.pyramid(cut), strict=True))


# -- ground ----------------------------------------------------------------------------------------------------------
def _strip(view: View, x0: float, x1: float, d0: float, d1: float) -> list[Point]:
    """Outline in pixels of the ground between two x and two distances, following the bend."""
    depths = [d0, *(d for d in _DEPTHS if d0 < d < d1), d1]
    return [view.point(x0, 0, d) for d in depths] + [view.point(x1, 0, d) for d in reversed(depths)]


def paint_ground(
    canvas: Canvas, view: View, world: World, look: Look, detail: NDArray[np.uint8], cars: Sequence[Footprint]
) -> None:
    """Road, pavement, verges, marks, shadows and grain; ``cars`` cast a shadow on the road."""
    top = max(int(view.horizon_y), 0)
    cv2.rectangle(canvas.pixels, (0, top), (view.width, view.height), (*look.slabs, PAVEMENT), -1)
    _paint_slabs(canvas, view, world.plan, look)
    _paint_road(canvas, view, world, look)
    _paint_marks(canvas, view, world)
    _shade_ground(canvas, view, world, look, detail, cars)
    _haze_ground(canvas, view)


def _paint_slabs(canvas: Canvas, view: View, plan: Plan, look: Look) -> None:
    joint = tuple(0.82 * c for c in look.slabs)
    first = int(view.camera_z)
    for side in (-1, 1):
        kerb, wall = plan.kerb(side), plan.wall(side)
        for z in range(first + 1, first + 16):
            d = z - view.camera_z
            canvas.line(view.point(side * kerb, 0, d), view.point(side * wall, 0, d), view.scale(d) * 0.012, joint, PAVEMENT)
        if plan.verge[side > 0] and wall - kerb > 2.6:
            canvas.polygon(_strip(view, side * (kerb + 0.15), side * (kerb + 1.2), NEAR_M, FAR_M), (48, 96, 74), TREE)


def _junctions(view: View, world: World) -> Iterator[float]:
    first = int((view.camera_z - JUNCTION_M) // CHUNK_M)
    for index in range(first, first + int(FAR_M // CHUNK_M) + 2):
        if world.junction(index):
            yield index * CHUNK_M - view.camera_z


def _paint_road(canvas: Canvas, view: View, world: World, look: Look) -> None:
    plan, light = world.plan, tuple(min(1.25 * c + 12, 255) for c in look.slabs)
    left, right = -plan.kerb(-1), plan.kerb(1)
    for side, kerb in ((-1, left), (1, right)):
        canvas.polygon(_strip(view, kerb, kerb + side * 0.16, NEAR_M, FAR_M), light, PAVEMENT)
    canvas.polygon(_strip(view, left, right, NEAR_M, FAR_M * 4), look.asphalt, ROAD)
    for d in _junctions(view, world):
        if d + JUNCTION_M > NEAR_M:
            canvas.polygon(_strip(view, -80, 80, max(d, NEAR_M), d + JUNCTION_M), look.asphalt, ROAD)


def _paint_marks(canvas: Canvas, view: View, world: World) -> None:
    plan = world.plan
    start = view.camera_z - view.camera_z % 6
    for k in range(int(70 / 6)):
        d = start + 6 * k - view.camera_z
        if d + 3 > NEAR_M:
            canvas.polygon(_strip(view, -0.07, 0.07, max(d, NEAR_M), d + 3), _WHITE, ROAD)
    for side in (-1, 1):
        if plan.double_lines and not plan.parking[side > 0]:
            for x in (0.25, 0.5):
                edge = side * (plan.half_road - x)
                canvas.polygon(_strip(view, edge - 0.05, edge + 0.05, NEAR_M, 60), _YELLOW, ROAD)
    for d in _junctions(view, world):
        before = d - 3.5
        if before > NEAR_M:
            stripes = np.arange(-plan.half_road + 0.3, plan.half_road - 0.5, 1.1)
            for x in stripes:
                canvas.polygon(_strip(view, x, x + 0.55, before, before + 2.6), _WHITE, ROAD)


def _shade_ground(
    canvas: Canvas, view: View, world: World, look: Look, detail: NDArray[np.uint8], cars: Sequence[Footprint]
) -> None:
    top = min(max(int(view.horizon_y) + 2, 0), view.height)
    rows = np.arange(top, view.height, dtype=np.float32) + 0.5 - view.horizon_y
    depth = np.minimum(view.focal_px * view.camera_y / np.maximum(rows, 0.5), 4 * FAR_M).astype(np.float32)
    columns = np.arange(view.width, dtype=np.float32) - view.centre_x
    per_m = textures.GROUND_TILE_PX / textures.GROUND_TILE_M
    shift = view.camera_x - 0.5 * view.bend * depth * depth
    map_x = (columns[None] * (depth * (per_m / view.focal_px))[:, None] + (shift * per_m)[:, None]).astype(np.float32)
    along = ((depth + view.camera_z) * per_m % textures.GROUND_TILE_PX).astype(np.float32)
    map_y = np.repeat(along[:, None], view.width, axis=1)
    grain = cv2.remap(detail, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    near = np.minimum(14 / depth, 1)[:, None]  # far grain averages out; drawn, it would shimmer
    factor = np.clip((grain.astype(np.float32) - 128) * near + 128, 0, 255).astype(np.uint8)
    shade = _shadows(view, world.plan, look, cars)[top:]
    factor = np.asarray(cv2.multiply(factor, shade, scale=1 / 255), np.uint8)
    window = canvas.pixels[top:]
    keep = np.full_like(factor, 128)
    cv2.multiply(window, cv2.merge([factor, factor, factor, keep]), dst=window, scale=1 / 128)


def _shadows(view: View, plan: Plan, look: Look, cars: Sequence[Footprint]) -> NDArray[np.uint8]:
    """(H, W) uint8 brightness of the ground, 255 in the light."""
    shade = np.full((view.height, view.width), 255, np.uint8)
    dark = Canvas(shade)
    level = look.shadow * 255
    if look.shadow < 1:
        wall = -look.sun_side * plan.wall(-look.sun_side)
        dark.polygon(_strip(view, wall, wall + look.sun_side * look.shadow_m, NEAR_M, FAR_M), (level, level, level), 0)
    for x, d, length in cars:
        reach = 0.9 if look.shadow < 1 else 0.15
        sides = sorted((x + look.sun_side * 0.75, x - look.sun_side * (0.8 + reach)))
        soft = min(level, 150.0)
        dark.polygon(_strip(view, sides[0], sides[1], max(d - 0.2, NEAR_M), max(d + length, NEAR_M)), (soft, soft, soft), 0)
    return shade


def _haze_ground(canvas: Canvas, view: View) -> None:
    top = min(max(int(view.horizon_y), 0), view.height)
    bottom = min(top + int(view.focal_px * view.camera_y / (0.05 * view.haze_m)) + 2, view.height)
    rows = np.maximum(np.arange(top, bottom, dtype=np.float64) + 0.5 - view.horizon_y, 0.3)
    keep = np.exp(-view.focal_px * view.camera_y / rows / view.haze_m)[:, None]
    scale = np.hstack([keep * 255, keep * 255, keep * 255, np.full_like(keep, 255)]).astype(np.uint8)
    veil = np.hstack([(1 - keep) * np.array(view.haze_colour), np.zeros_like(keep)]).astype(np.uint8)
    window = canvas.pixels[top:bottom]
    cv2.multiply(window, np.repeat(scale[:, None], view.width, axis=1), dst=window, scale=1 / 255)
    cv2.add(window, np.repeat(veil[:, None], view.width, axis=1), dst=window)


# -- backdrop ----------------------------------------------------------------------------------------------------------
def paint_backdrop(canvas: Canvas, view: View, seed: int, look: Look, sky: NDArray[np.uint8]) -> None:
    """Sky, and the far roofs and trees that end the street."""
    rows = min(sky.shape[0], view.height)
    canvas.pixels[:rows] = sky[:rows]
    rng = np.random.default_rng([seed, 6])
    x, base = -0.2 * view.width, view.horizon_y + 2
    drift = view.bend * 150 * view.focal_px
    x += drift * 0.5 if drift < 0 else drift * 0.5 - abs(drift)
    while x < view.width * 1.2 + abs(drift):
        wide, tall = rng.uniform(0.02, 0.09) * view.width, rng.uniform(0.015, 0.065) * view.width
        if rng.random() < 0.45:
            colour = view.fade((44, 80, 60), 95, rng.uniform(0.7, 1.3))
            bumps = [(x + wide * k / 8, base - tall * rng.uniform(0.6, 1.0) * sin(pi * k / 8) ** 0.5) for k in range(9)]
            canvas.polygon([(x, base), *bumps, (x + wide, base)], colour, TREE)
        else:
            colour = view.fade((110, 115, 130), 95, rng.uniform(0.6, 1.5))
            canvas.polygon([(x, base), (x, base - tall), (x + wide, base - tall), (x + wide, base)], colour, BUILDING)
        x += wide * rng.uniform(0.55, 1.0)


# -- walls ---------------------------------------------------------------------------------------------------------------
def _wall_texture(
    canvas: Canvas, view: View, pyramid: Sequence[NDArray[np.uint8]], x: float, item: Item, height: float, light: float, slot: int
) -> None:
    """A picture on the vertical plane x = const over the item's length; repeated is stretched, near parts are cut away."""
    d0, d1 = item.z - view.camera_z, item.z + item.size - view.camera_z
    if d1 <= NEAR_M * 1.5:
        return
    cut = max(0.0, (NEAR_M * 1.5 - d0) / item.size)
    d0 = max(d0, NEAR_M * 1.5)
    wanted = view.scale(max(d0, 3.0)) * height
    level = 0
    while level + 1 < len(pyramid) and pyramid[level + 1].shape[0] >= wanted:
        level += 1
    picture = pyramid[level]
    near_edge = min(int(cut * picture.shape[1]), picture.shape[1] - 2)
    picture = picture[:, near_edge:] if item.side < 0 else picture[:, : picture.shape[1] - near_edge]
    picture = view.fade_picture(picture, d0, light)
    near = [view.point(x, height, d0), view.point(x, 0, d0)]
    far = [view.point(x, height, d1), view.point(x, 0, d1)]
    # On the left the near edge is the picture's left edge; on the right its own right edge is farther off.
    corners = [near[0], far[0], far[1], near[1]] if item.side < 0 else [far[0], near[0], near[1], far[1]]
    canvas.texture(picture, corners, slot)


def paint_building(canvas: Canvas, view: View, item: Item, look: Look, stock: Stock) -> None:
    """End wall, roof and street front of a house."""
    pyramid = stock.facades[int(item.style * 997) % len(stock.facades)]
    ratio = pyramid[0].shape[0] / textures.FACADE_PX_PER_M
    height = ratio * (0.85 + 0.4 * ((item.style * 13.7) % 1))
    x, d0, d1 = item.x, item.z - view.camera_z, item.z + item.size - view.camera_z
    light = (1.08 if item.side == -look.sun_side else max(look.shadow, 0.62) * 1.05) if look.shadow < 1 else 1.0
    wall = [float(level) for level in pyramid[-1].reshape(-1, 3).mean(axis=0)]
    depth = item.side * (8 + 6 * item.style)
    peak = height + 2.6 if item.style * 7.1 % 1 < 0.55 else height
    if d0 > NEAR_M:
        middle = x + depth / 2
        gable = [(x, 0), (x, height), (middle, peak + 0.6 * (peak - height)), (x + depth, height), (x + depth, 0)]
        canvas.polygon([view.point(gx, gy, d0) for gx, gy in gable], view.fade(wall, d0, 0.82 * light), BUILDING)
    if peak > height:
        near, slate = max(d0, NEAR_M), (72, 66, 66) if item.style * 3.3 % 1 < 0.6 else (56, 72, 130)
        ridge = x + item.side * 3.2
        roof = [view.point(x, height, near), view.point(ridge, peak, near), view.point(ridge, peak, d1), view.point(x, height, d1)]
        canvas.polygon(roof, view.fade(slate, max(d0, 1), light), BUILDING)
        _paint_chimney(canvas, view, item, ridge, peak, wall)
    _wall_texture(canvas, view, pyramid, x, item, height, light, BUILDING)


def _paint_chimney(canvas: Canvas, view: View, item: Item, x: float, peak: float, wall: Sequence[float]) -> None:
    d = item.z + item.size * 0.4 - view.camera_z
    if d > 6:
        box = [(x - 0.5, peak - 0.8), (x - 0.5, peak + 1), (x + 0.5, peak + 1), (x + 0.5, peak - 0.8)]
        canvas.polygon([view.point(px, py, d) for px, py in box], view.fade(wall, d, 0.7), BUILDING)


def paint_hedge(canvas: Canvas, view: View, item: Item, look: Look, stock: Stock) -> None:
    """A hedge along the pavement: front and near end."""
    height = 1.1 + 1.2 * item.style
    light = look.shadow if look.shadow < 1 and item.side == look.sun_side else 1.0
    d = item.z - view.camera_z
    if d > NEAR_M:
        end = [(item.x, 0), (item.x, height), (item.x + item.side * 0.9, height), (item.x + item.side * 0.9, 0)]
        canvas.polygon([view.point(x, y, d) for x, y in end], view.fade((34, 70, 48), d, light), TREE)
    _wall_texture(canvas, view, stock.hedge, item.x, item, height, light, TREE)


def paint_fence(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """Boards that hide what is behind, or bars that do not; either way the whole of it is labelled fence."""
    boards = item.kind == "fence" and item.style < 0.5
    height = 1.0 + 0.9 * item.style if item.kind == "fence" else 1.05
    d0, d1 = max(item.z - view.camera_z, NEAR_M * 2), item.z + item.size - view.camera_z
    if d1 <= d0:
        return
    face = [view.point(item.x, 0, d0), view.point(item.x, height, d0), view.point(item.x, height, d1), view.point(item.x, 0, d1)]
    light = look.shadow if item.side == look.sun_side else 1.0
    base: Colour = (70, 98, 128) if boards else ((40, 40, 42) if item.style < 0.8 else (150, 155, 158))
    if boards:
        canvas.polygon(face, view.fade(base, (d0 + d1) / 2, light), FENCE)
    else:
        canvas.relabel(face, FENCE)
    pitch = 0.3 if boards else 0.16 if item.kind == "fence" else 0.2
    colour = tuple(c * 0.72 for c in base) if boards else base
    z = item.z + pitch * max(0, int((d0 + view.camera_z - item.z) / pitch) + 1)
    while z < item.z + item.size and (d := z - view.camera_z) < 55:
        foot, tip = view.point(item.x, 0, d), view.point(item.x, height, d)
        canvas.line(foot, tip, view.scale(d) * 0.025, view.fade(colour, d, light), FENCE)
        z += pitch * (1 + int(d / 12))
    for y in (height, height * 0.15):
        ends = view.point(item.x, y, d0), view.point(item.x, y, d1)
        canvas.line(ends[0], ends[1], view.scale((d0 + d1) / 2) * 0.05, view.fade(base, d0, light), FENCE)


# -- trees, poles, signs ------------------------------------------------------------------------------------------------
def paint_tree(canvas: Canvas, view: View, item: Item, look: Look, stock: Stock) -> None:
    """Trunk and crown; both are labelled tree."""
    d = item.z - view.camera_z
    if d < 2.0:
        return
    height, scale = 5 + 5 * item.style, view.scale(d)
    light = 0.75 + 0.5 * ((item.style * 5.3) % 1)
    trunk = view.fade((44, 60, 74), d, light)
    sizes = stock.crowns[int(item.style * 331) % len(stock.crowns)]
    foot, top = view.point(item.x, 0, d), view.point(item.x, height, d)
    width = height * (0.75 if stock.bare else 0.62 + 0.2 * item.style)
    reach = height * (0.82 if stock.bare else 0.7)
    fork = view.point(item.x, height - reach * (1.0 if stock.bare else 0.6), d)
    canvas.line(foot, fork, scale * 0.1 * (1 + 1.6 * item.style), trunk, TREE)
    box = (top[0] - width * scale / 2, top[1], width * scale, reach * scale)
    picture, mask = next((pair for pair in reversed(sizes) if pair[0].shape[0] >= box[3]), sizes[0])
    canvas.sprite(view.fade_picture(picture, d, light), mask, box, TREE)


def _upright(canvas: Canvas, view: View, x: float, y0: float, y1: float, d: float, radius: float, colour: Colour) -> None:
    (left, bottom), (_, top) = view.point(x, y0, d), view.point(x, y1, d)
    half = max(radius * view.scale(d), 0.5)
    canvas.polygon([(left - half, bottom), (left - half, top), (left + half, top), (left + half, bottom)], colour, POLE)


def paint_lamp(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """A street lamp with an arm over the road."""
    d = item.z - view.camera_z
    if d < 1.5:
        return
    height = 5.5 + 3.5 * item.style
    grey = 70 + 90 * ((item.style * 3.7) % 1)
    colour = view.fade((grey, grey, grey * 0.98), d)
    _upright(canvas, view, item.x, 0, height, d, 0.07, colour)
    arm = item.x - item.side * 1.6
    canvas.line(view.point(item.x, height, d), view.point(arm, height + 0.35, d), view.scale(d) * 0.08, colour, POLE)
    lit = (190, 235, 255) if look.lit > 0.3 else (150, 155, 158)
    head = view.point(arm, height + 0.35, d), view.point(arm - item.side * 0.5, height + 0.38, d)
    canvas.line(*head, view.scale(d) * 0.16, lit, POLE)


def paint_bollard(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """A knee-high post at the kerb."""
    d = item.z - view.camera_z
    if d > 1.0:
        _upright(canvas, view, item.x, 0, 0.95, d, 0.07, view.fade((36, 36, 38), d))


def paint_sign(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """A disc, triangle or board on a post."""
    d = item.z - view.camera_z
    if d < 1.5:
        return
    height, style = 2.3 + 0.7 * item.style, (item.style * 11.3) % 1
    _upright(canvas, view, item.x, 0, height + 0.3, d, 0.045, view.fade((125, 128, 130), d))
    size = 0.36 + 0.24 * item.style
    if style < 0.35:
        rim, face = ((40, 40, 200), (235, 235, 235)) if style < 0.2 else ((160, 90, 20), (190, 110, 30))
        _regular(canvas, view, item.x, height, d, size, 14, 0, rim)
        _regular(canvas, view, item.x, height, d, size * 0.74, 14, 0, face)
    elif style < 0.6:
        _regular(canvas, view, item.x, height, d, size * 1.1, 3, pi / 2, (40, 40, 205))
        _regular(canvas, view, item.x, height - 0.04, d, size * 0.66, 3, pi / 2, (232, 236, 236))
    else:
        wide, tall = (0.6, 0.95) if style < 0.8 else (1.3, 0.7)
        paint = ((150, 80, 20), (60, 110, 20), (225, 228, 228), (30, 190, 235))[int(item.style * 91) % 4]
        _board(canvas, view, item.x, height - tall / 2, d, wide, tall, paint)
        _board(canvas, view, item.x, height - tall * 0.2, d, wide * 0.7, tall * 0.18, tuple(255 - 0.8 * c for c in paint))


def paint_light(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """A traffic light: pole, and a head labelled sign."""
    d = item.z - view.camera_z
    if d < 1.5:
        return
    _upright(canvas, view, item.x, 0, 2.6, d, 0.06, view.fade((50, 52, 54), d))
    _board(canvas, view, item.x, 2.35, d, 0.52, 1.15, (26, 26, 28))
    shown = int(item.style * 3)
    for lamp, colour in enumerate(((60, 60, 250), (60, 190, 250), (120, 235, 60))):
        paint = colour if lamp == shown else tuple(0.25 * c for c in colour)
        _regular(canvas, view, item.x, 3.2 - 0.33 * lamp, d, 0.12, 8, 0, paint)


def _regular(
    canvas: Canvas, view: View, x: float, y: float, d: float, radius: float, sides: int, turn: float, colour: Sequence[float]
) -> None:
    angles = [turn + 2 * pi * k / sides for k in range(sides)]
    canvas.polygon([view.point(x + radius * cos(a), y + radius * sin(a), d) for a in angles], view.fade(colour, d), SIGN)


def _board(canvas: Canvas, view: View, x: float, y: float, d: float, wide: float, tall: float, colour: Sequence[float]) -> None:
    corners = [(x - wide / 2, y), (x - wide / 2, y + tall), (x + wide / 2, y + tall), (x + wide / 2, y)]
    canvas.polygon([view.point(cx, cy, d) for cx, cy in corners], view.fade(colour, d), SIGN)
