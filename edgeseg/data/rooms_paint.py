"""Rooms: painting of a plan: nearest surfaces first, then light and shadow on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.rooms_look import Texture, make_grain
from edgeseg.data.rooms_plan import Panel, Plan
from edgeseg.data.rooms_shapes import Solid
from edgeseg.data.rooms_things import KINDS
from edgeseg.data.rooms_view import Buffers, Camera, Floats

FLOOR, WALL, CEILING, WINDOW, PAINTING = range(5)
THING = 5
_RIM_M = 0.06


def paint(plan: Plan, rng: np.random.Generator) -> tuple[Buffers, Floats]:
    """The surfaces, and the light (H, W, 3) float32 BGR, about 0..1, that comes from them."""
    grain = make_grain(rng)
    buffers = _shell(plan, grain)
    eye = np.array(plan.camera.place, np.float32)
    for number, thing in enumerate(plan.things):
        for solid, texture in thing.solids:
            _put(buffers, plan.camera, eye, solid, texture, number, THING + KINDS.index(thing.kind), grain)
    return buffers, _lit(plan, buffers, eye)


def _shell(plan: Plan, grain: Floats) -> Buffers:
    """The empty room: for each ray the first of five planes that it leaves the room through."""
    camera = plan.camera
    buffers = Buffers.blank(camera.width, camera.height)
    width, height, length = plan.size
    x, y, z = camera.place
    rays = np.where(np.abs(camera.rays) < 1e-7, np.float32(1e-7), camera.rays)
    sides = (np.where(rays[0] > 0, width / 2, -width / 2) - x) / rays[0]
    levels = (np.where(rays[1] > 0, height, 0) - y) / rays[1]
    ends = (np.where(rays[2] > 0, length, 0) - z) / rays[2]
    distances = np.stack([sides, levels, ends]).astype(np.float32)
    axis = distances.argmin(axis=0)
    buffers.depth = distances.min(axis=0)
    point = camera.rays * buffers.depth + np.array(camera.place, np.float32)[:, None, None]
    for number in range(3):
        buffers.normal[number] = np.where(axis == number, -np.sign(rays[number]), 0)
    flat = axis == 1
    down = flat & (rays[1] < 0)
    buffers.label = np.where(flat, np.where(down, FLOOR, CEILING), WALL).astype(np.uint8)
    along = np.where(axis == 0, point[2], point[0])
    _cover(buffers, down, point[0], point[2], plan.floor, grain)
    _cover(buffers, flat & ~down, point[0], point[2], plan.ceiling, grain)
    _cover(buffers, ~flat, along, point[1], plan.walls, grain)
    for panel in plan.panels:
        wall = (axis == 2) & (rays[2] > 0) if panel.wall == 2 else (axis == 0) & ((rays[0] > 0) == (panel.wall == 1))
        start = width / 2 if panel.wall == 2 else 0.0
        _hang(buffers, panel, wall, along + np.float32(start), point[1], grain)
    return buffers


def _cover(buffers: Buffers, where: NDArray[np.bool_], u: Floats, v: Floats, texture: Texture, grain: Floats) -> None:
    if where.any():
        buffers.albedo[:, where] = texture.paint(u[where], v[where], grain)
        buffers.glow[where] = texture.glow


def _hang(buffers: Buffers, panel: Panel, wall: NDArray[np.bool_], u: Floats, v: Floats, grain: Floats) -> None:
    (u0, v0), (u1, v1) = panel.low, panel.high
    inside = wall & (u > u0) & (u < u1) & (v > v0) & (v < v1)
    if not inside.any():
        return
    buffers.label[inside] = WINDOW if panel.window else PAINTING
    rim = np.minimum(np.minimum(u - u0, u1 - u), np.minimum(v - v0, v1 - v)) < _RIM_M
    if panel.window:
        rim |= np.abs(u - (u0 + u1) / 2) < _RIM_M / 2
    _cover(buffers, inside & ~rim, u, v, panel.picture, grain)
    _cover(buffers, inside & rim, u, v, panel.frame, grain)


def _put(
    buffers: Buffers, camera: Camera, eye: Floats, solid: Solid, texture: Texture, number: int, label: int, grain: Floats
) -> None:
    """Paint one solid where it is nearer than what is there."""
    window = camera.window(*solid.bounds())
    if window is None:
        return
    planes = (slice(None), *window)
    rays = np.ascontiguousarray(camera.rays[planes]).reshape(3, -1)
    t, surface = solid.hit(eye, rays, camera.squares[window].ravel())
    depth = buffers.depth[window]
    nearer = t < depth.ravel()
    chosen = np.flatnonzero(nearer)
    if not chosen.size:
        return
    mask = nearer.reshape(depth.shape)
    normal, u, v = surface(chosen)
    # Writing through a view of the window keeps the rest of the picture out of it.
    depth[mask] = t[chosen]
    buffers.thing[window][mask] = number
    buffers.label[window][mask] = label
    buffers.normal[planes][:, mask] = normal
    buffers.albedo[planes][:, mask] = texture.paint(u, v, grain)
    buffers.glow[window][mask] = texture.glow


def _lit(plan: Plan, buffers: Buffers, eye: Floats) -> Floats:
    """Lambert's law, one lamp with shadows, and ambient light."""
    light, camera = plan.light, plan.camera
    point = camera.rays * buffers.depth + eye[:, None, None]
    to_lamp = light.place[:, None, None] - point
    squares = np.einsum("chw,chw->hw", to_lamp, to_lamp)
    # Inner sides of open solids are lit as their outer sides are.
    facing = np.einsum("chw,chw->hw", buffers.normal, camera.rays)
    cosine = np.einsum("chw,chw->hw", buffers.normal, to_lamp) * np.where(facing > 0, -1, 1) / np.sqrt(squares)
    direct = np.maximum(cosine, 0) * (light.strength * 2.4 / (1.4 + squares * 0.35)) * _visible(plan, buffers, point, -to_lamp)
    slope = 0.85 + 0.15 * buffers.normal[1]
    amount = np.maximum(light.ambient * slope + direct, buffers.glow * 1.15).astype(np.float32)
    out = np.empty((*amount.shape, 3), np.float32)
    for channel in range(3):
        out[..., channel] = buffers.albedo[channel] * amount * np.float32(light.tint[channel])
    return out


def _visible(plan: Plan, buffers: Buffers, point: Floats, rays: Floats) -> Floats:
    """(H, W) share of the lamp that each surface sees; a thing throws no shadow on itself, its own shading does that."""
    shape = buffers.depth.shape
    share = np.ones(buffers.depth.size, np.float32)
    from_lamp = np.ascontiguousarray(rays).reshape(3, -1)
    squares = np.einsum("cn,cn->n", from_lamp, from_lamp)
    owner = buffers.thing.ravel()
    for number, thing in enumerate(plan.things):
        other = owner != number
        for solid in thing.shade:
            hidden = _shaded(solid, plan.light.place, from_lamp, squares)
            share[hidden & other] = 0.15
    return share.reshape(shape)


def _shaded(solid: Solid, lamp: Floats, rays: Floats, squares: Floats) -> NDArray[np.bool_]:
    """Rays that meet the solid on their way from the lamp; only those near its bounding ball are tried."""
    points, radius = solid.bounds()
    middle = points.mean(axis=0) - lamp
    reach = np.float32(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).max()) + radius)
    along = middle @ rays
    close = (along > 0) & (squares * np.float32(middle @ middle - reach**2) < along * along)
    chosen = np.flatnonzero(close)
    hidden = np.zeros(len(squares), bool)
    if chosen.size:
        t, _ = solid.hit(lamp, rays[:, chosen], squares[chosen])
        hidden[chosen] = t < 0.985
    return hidden
