"""Rooms: the things that stand in them, each a few solids with textures."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgeseg.data.rooms_figures import make_figure, random_facing
from edgeseg.data.rooms_look import Colour, Pattern, Texture
from edgeseg.data.rooms_shapes import Ball, Block, Capsule, Frustum, Solid
from edgeseg.data.rooms_view import Floats

KINDS = ("person", "ball", "box", "cone", "lamp")


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        kind: one of ``KINDS``.
        solids: with their textures.
        shade: solids that throw its shadow.
        place: (x, z) of its middle on the floor.
        reach: radius in plan, metres.
        top: height of a level face that another thing can stand on; 0 without one.
        keypoints, flesh: of a person, see ``Figure``.
    """

    kind: str
    solids: list[tuple[Solid, Texture]]
    shade: list[Solid]
    place: tuple[float, float]
    reach: float
    top: float = 0.0
    keypoints: Floats | None = None
    flesh: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


def reach_of(kind: str, rng: np.random.Generator) -> float:
    """A likely radius in plan for a thing of this kind, metres."""
    low, high = {"person": (0.25, 0.3), "ball": (0.12, 0.36), "box": (0.2, 0.5), "cone": (0.14, 0.32), "lamp": (0.13, 0.24)}[kind]
    return float(rng.uniform(low, high))


def make_thing(kind: str, rng: np.random.Generator, place: tuple[float, float], floor: float, reach: float) -> Thing:
    """A thing of ``kind`` standing at ``place`` on a level face at height ``floor``."""
    return _MAKERS[kind](rng, place, floor, reach)


def _at(place: tuple[float, float], height: float) -> Floats:
    return np.array([place[0], height, place[1]], np.float32)


def _vivid(rng: np.random.Generator, hues: tuple[float, float] = (0.0, 1.0)) -> Colour:
    hue, level = rng.uniform(*hues), rng.uniform(0.5, 0.95)
    r, g, b = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.55, 0.95), level)
    return float(b), float(g), float(r)


def _grey(rng: np.random.Generator, low: float, high: float) -> Colour:
    level, warm = rng.uniform(low, high), rng.uniform(-0.04, 0.06)
    return float(level - warm), float(level), float(level + warm)


def _person(rng: np.random.Generator, place: tuple[float, float], floor: float, reach: float) -> Thing:
    figure = make_figure(rng, *place, random_facing(rng))
    head, hips = figure.keypoints[0], figure.keypoints[1]
    legs = _at(place, 0.1)
    shade: list[Solid] = [Capsule(hips, head, 0.17), Capsule(legs, hips, 0.12)]
    return Thing("person", figure.solids, shade, place, reach, 0.0, figure.keypoints, figure.flesh)


def _ball(rng: np.random.Generator, place: tuple[float, float], floor: float, reach: float) -> Thing:
    axis = rng.normal(size=3)
    pattern: Pattern = "bands" if rng.random() < 0.5 else "plain"
    second = (0.95, 0.95, 0.95) if rng.random() < 0.6 else _vivid(rng)
    texture = Texture(_vivid(rng), second, pattern, reach * float(rng.uniform(0.5, 1.2)), 0.04)
    solid = Ball(_at(place, floor + reach), reach, (axis / np.linalg.norm(axis)).astype(np.float32))
    return Thing("ball", [(solid, texture)], [solid], place, reach)


def _box(rng: np.random.Generator, place: tuple[float, float], floor: float, reach: float) -> Thing:
    share = rng.uniform(0.45, 0.9)
    width, depth = 2 * reach * share, 2 * reach * float(np.sqrt(1 - share**2))
    height = float(rng.uniform(0.2, 0.95) if floor == 0 else rng.uniform(0.12, 0.3))
    wood = rng.random()
    colour = _vivid(rng, (0.05, 0.12)) if wood < 0.55 else _grey(rng, 0.25, 0.8) if wood < 0.8 else _vivid(rng)
    darker = tuple(0.6 * value for value in colour)
    pattern: Pattern = ("plain", "frame", "bands")[rng.integers(3)]  # type: ignore[assignment]
    texture = Texture(colour, darker, pattern, float(rng.uniform(0.2, 0.5)), 0.12)  # type: ignore[arg-type]
    solid = Block(_at(place, floor), (float(width), height, depth), float(rng.uniform(0, np.pi)))
    top = floor + height if floor == 0 and min(width, depth) > 0.28 else 0.0
    return Thing("box", [(solid, texture)], [solid], place, reach, top)


def _cone(rng: np.random.Generator, place: tuple[float, float], floor: float, reach: float) -> Thing:
    height = float(reach * rng.uniform(1.8, 3.2))
    colour = _vivid(rng, (0.02, 0.12)) if rng.random() < 0.6 else _vivid(rng)
    texture = Texture(colour, (0.95, 0.95, 0.95), "bands" if rng.random() < 0.6 else "plain", height * 0.36, 0.06)
    solid = Frustum(_at(place, floor), height, reach, reach * float(rng.uniform(0, 0.12)))
    return Thing("cone", [(solid, texture)], [solid], place, reach)


def _lamp(rng: np.random.Generator, place: tuple[float, float], floor: float, reach: float) -> Thing:
    height = float(rng.uniform(1.1, 1.6) if floor == 0 and rng.random() < 0.7 else rng.uniform(0.4, 0.7))
    deep = float(reach * rng.uniform(1.0, 1.5))
    metal = Texture(_grey(rng, 0.12, 0.7), grain=0.05)
    cloth = Texture(_grey(rng, 0.6, 0.95) if rng.random() < 0.7 else _vivid(rng), grain=0.05, glow=float(rng.uniform(0.2, 0.7)))
    shade = Frustum(_at(place, floor + height - deep), deep, reach, reach * float(rng.uniform(0.45, 0.8)))
    pole = Frustum(_at(place, floor), height - deep / 2, 0.022, 0.022)
    foot = Frustum(_at(place, floor), 0.03, reach * 0.75, reach * 0.7)
    return Thing("lamp", [(pole, metal), (foot, metal), (shade, cloth)], [shade], place, reach)


_MAKERS: dict[str, Callable[[np.random.Generator, tuple[float, float], float, float], Thing]] = {
    "person": _person,
    "ball": _ball,
    "box": _box,
    "cone": _cone,
    "lamp": _lamp,
}
