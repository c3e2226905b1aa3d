"""Rooms: what a seed decides: the room, what hangs on its walls, where the camera is and what stands before it."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, radians, sin
from typing import Literal

import numpy as np

from edgeseg.data.rooms_look import Colour, Light, Pattern, Sensor, Texture, make_light
from edgeseg.data.rooms_things import KINDS, Thing, make_thing, reach_of
from edgeseg.data.rooms_view import Camera

Crowd = Literal["mixed", "people", "sparse"]
"""Any things; one to three people and little else; or things of one or two kinds only."""


@dataclass(frozen=True)
class Panel:
    """A window or painting: where it hangs and how it looks.

    Attributes:
        wall: 0 left, 1 right, 2 far.
        low, high: (along the wall, height) of its corners, metres.
        window: or else a painting.
        frame, picture: textures of the rim and of what it surrounds.
    """

    wall: int
    low: tuple[float, float]
    high: tuple[float, float]
    window: bool
    frame: Texture
    picture: Texture


@dataclass(frozen=True)
class Plan:
    """Everything that a picture shows. ``size`` is width, height and length; x runs from -width/2, z from 0."""

    size: tuple[float, float, float]
    floor: Texture
    walls: Texture
    ceiling: Texture
    panels: list[Panel]
    things: list[Thing]
    camera: Camera
    light: Light
    sensor: Sensor


def make_plan(seed: int, width: int, height: int, crowd: Crowd, dark: bool) -> Plan:
    """The room of a seed, seen in ``width`` by ``height`` pixels; the pixels and the dark change nothing else."""
    rng = np.random.default_rng([seed, 11])
    size = float(rng.uniform(3.4, 6.5)), float(rng.uniform(2.4, 3.1)), float(rng.uniform(4.0, 8.5))
    camera = _camera(rng, size, width, height)
    floor, walls, ceiling = _surfaces(rng)
    panels = _panels(rng, size)
    light = make_light(rng, size)
    things = _furnish(np.random.default_rng([seed, 12]), size, camera, crowd)
    sensor = Sensor.make(np.random.default_rng([seed, 13]), dark)
    return Plan(size, floor, walls, ceiling, panels, things, camera, light, sensor)


def _camera(rng: np.random.Generator, size: tuple[float, float, float], width: int, height: int) -> Camera:
    place = float(rng.uniform(-0.3, 0.3) * size[0]), float(rng.uniform(0.9, 1.85)), 0.25
    # Further left it looks more to the right, so that the room is before it.
    yaw = -0.25 * place[0] / size[0] * 2 + rng.normal(0, 0.16)
    pitch, roll = radians(rng.uniform(-5, 9) + 9 * (place[1] - 0.9)), radians(rng.normal(0, 2.5))
    focal = float(rng.uniform(0.8, 1.1)) * max(width, height)
    return Camera(width, height, focal, place, float(yaw), float(pitch), float(roll))


def _surfaces(rng: np.random.Generator) -> tuple[Texture, Texture, Texture]:
    def pick(*patterns: Pattern) -> Pattern:
        return patterns[rng.integers(len(patterns))]

    def near(colour: Colour, change: float) -> Colour:
        b, g, r = np.clip(np.array(colour) * (1 + change), 0, 1)
        return float(b), float(g), float(r)

    woods: tuple[Colour, ...] = ((0.25, 0.4, 0.58), (0.16, 0.26, 0.4), (0.5, 0.55, 0.6), (0.35, 0.38, 0.4), (0.42, 0.3, 0.28))
    wood = near(woods[rng.integers(len(woods))], rng.uniform(-0.2, 0.2))
    floor = Texture(
        wood, near(wood, rng.uniform(-0.3, -0.12)), pick("plain", "stripes", "checks", "bricks"), rng.uniform(0.2, 0.6), 0.14
    )
    level = rng.uniform(0.5, 0.85)
    b, g, r = np.clip(level + rng.normal(0, 0.07, 3), 0.2, 0.95)
    paint: Colour = float(b), float(g), float(r)
    pattern = pick("plain", "plain", "stripes", "bricks")
    walls = Texture(paint, near(paint, rng.uniform(-0.15, 0.1)), pattern, rng.uniform(0.15, 0.5), rng.uniform(0.03, 0.1))
    white = rng.uniform(0.75, 0.95)
    return floor, walls, Texture((white, white, white * 0.99), grain=0.03)


def _panels(rng: np.random.Generator, size: tuple[float, float, float]) -> list[Panel]:
    panels = []
    for wall in range(3):
        length = size[0] if wall == 2 else size[2]
        begin = 0.3 if wall == 2 else 1.6
        while begin < length - 1.0:
            span = float(rng.uniform(0.7, 1.5))
            if begin + span < length - 0.2 and rng.random() < 0.6:
                panels.append(_panel(rng, wall, begin, span, size[1]))
            begin += span + float(rng.uniform(0.3, 1.2))
    return panels


def _panel(rng: np.random.Generator, wall: int, begin: float, span: float, ceiling: float) -> Panel:
    window = bool(rng.random() < 0.5)
    low = rng.uniform(0.75, 1.1) if window else rng.uniform(1.0, 1.4)
    high = ceiling - rng.uniform(0.2, 0.45) if window else low + rng.uniform(0.5, 0.9)
    corners = (begin, float(low)), (begin + span, float(min(high, ceiling - 0.12)))
    if window:
        frame = Texture((0.92, 0.93, 0.93) if rng.random() < 0.7 else (0.16, 0.25, 0.38), grain=0.03)
        sky: Colour = (0.98, 0.9, 0.78) if rng.random() < 0.7 else (0.45, 0.22, 0.12)
        return Panel(wall, *corners, True, frame, Texture(sky, grain=0.05, glow=0.75))
    frame = Texture((0.1, 0.12, 0.15) if rng.random() < 0.5 else (0.2, 0.55, 0.7), grain=0.05)
    colours = [tuple(float(v) for v in rng.uniform(0.05, 0.9, 3)) for _ in range(2)]
    pattern: Pattern = ("checks", "bands", "stripes")[rng.integers(3)]  # type: ignore[assignment]
    picture = Texture(colours[0], colours[1], pattern, float(rng.uniform(0.15, 0.5)), 0.6)  # type: ignore[arg-type]
    return Panel(wall, *corners, False, frame, picture)


def _furnish(rng: np.random.Generator, size: tuple[float, float, float], camera: Camera, crowd: Crowd) -> list[Thing]:
    things: list[Thing] = []
    for kind, friend in _wanted(rng, crowd):
        reach = reach_of(kind, rng)
        under = [item for item in things if item.top > 0 and kind != "person" and item.reach > reach * 0.8]
        if under and rng.random() < 0.35:
            base = under[rng.integers(len(under))]
            things.append(make_thing(kind, rng, base.place, base.top, min(reach, base.reach * 0.6)))
            _spend(things, base)
            continue
        same = [item for item in things if item.kind == kind]
        beside = same[rng.integers(len(same))] if friend and same else None
        place = _free_place(rng, size, camera, things, reach, beside)
        if place is not None:
            things.append(make_thing(kind, rng, place, 0.0, reach))
    return things


def _wanted(rng: np.random.Generator, crowd: Crowd) -> list[tuple[str, bool]]:
    """Kinds in the order in which they are put, and whether each wants to touch another of its kind."""
    if crowd == "people":
        others = [KINDS[1 + rng.integers(4)] for _ in range(rng.integers(0, 4))]
        return [*((kind, False) for kind in others), *(("person", rng.random() < 0.3) for _ in range(rng.integers(1, 4)))]
    if crowd == "sparse":
        kinds = rng.permutation(len(KINDS))[: rng.integers(1, 3)]
        return [(KINDS[kind], rng.random() < 0.4) for kind in kinds for _ in range(rng.integers(1, 4))]
    # Boxes first, so that others may stand on them.
    chosen = sorted(rng.integers(0, len(KINDS), rng.integers(4, 10)), key=lambda kind: KINDS[kind] != "box")
    return [(KINDS[kind], rng.random() < 0.5) for kind in chosen]


def _spend(things: list[Thing], base: Thing) -> None:
    """A face that something stands on holds nothing more."""
    index = next(i for i, item in enumerate(things) if item is base)
    things[index] = Thing(base.kind, base.solids, base.shade, base.place, base.reach)


def _free_place(
    rng: np.random.Generator,
    size: tuple[float, float, float],
    camera: Camera,
    things: list[Thing],
    reach: float,
    beside: Thing | None,
) -> tuple[float, float] | None:
    """A place in view that nothing else takes; touching ``beside`` where that works."""
    half_view = 0.9 * np.arctan(camera.width / 2 / camera.focal)
    for attempt in range(24):
        if beside is not None and attempt < 10:
            angle, gap = rng.uniform(0, 2 * np.pi), (beside.reach + reach) * rng.uniform(0.86, 1.0)
            x, z = beside.place[0] + gap * cos(angle), beside.place[1] + gap * sin(angle)
        else:
            away = 1.5 + reach + (min(size[2] - 1.0, 6.5) - 1.5) * rng.random() ** 1.2
            bearing = camera.yaw + rng.uniform(-half_view, half_view)
            x, z = camera.place[0] + away * sin(bearing), camera.place[2] + away * cos(bearing)
        inside = abs(x) < size[0] / 2 - reach and 1.2 + reach < z < size[2] - reach
        clear = all(hypot(x - o.place[0], z - o.place[1]) > (0.85 if o is beside else 1.0) * (o.reach + reach) for o in things)
        if inside and clear:
            return float(x), float(z)
    return None
