"""Painting of what moves: cars as extruded side profiles, people and cyclists as jointed skeletons, all in 3-D."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import cos, pi, sin

from edgeseg.data.streets_look import Look
from edgeseg.data.streets_static import BICYCLIST, CAR, PEDESTRIAN
from edgeseg.data.streets_view import NEAR_M, Canvas, Colour, Point, View, clip_near
from edgeseg.data.streets_world import CAR_PAINTS, Item

Profile = tuple[tuple[float, float], ...]
Bone = tuple[float, float, float]  # forward, side, up in metres from the feet

# Outline from the rear bumper over the roof to the front bumper: (metres from the rear, height), and what each piece is.
_PROFILES: tuple[tuple[float, Profile, str], ...] = (
    (1.70, ((0, 0.32), (0, 0.92), (0.45, 1.42), (2.4, 1.46), (3.15, 0.98), (4.0, 0.8), (4.1, 0.32)), "bgrgbb"),
    (1.74, ((0, 0.32), (0, 0.95), (0.7, 1.0), (1.3, 1.4), (2.6, 1.42), (3.4, 0.96), (4.5, 0.78), (4.6, 0.32)), "bbgrgbb"),
    (1.85, ((0, 0.4), (0, 1.05), (0.2, 1.68), (2.9, 1.74), (3.6, 1.12), (4.5, 1.0), (4.6, 0.4)), "bgrgbb"),
    (1.95, ((0, 0.4), (0, 2.05), (3.9, 2.1), (4.6, 1.2), (5.2, 1.05), (5.2, 0.4)), "vrgbb"),
    (2.45, ((0, 0.4), (0, 3.0), (9.6, 3.0), (9.8, 1.3), (9.8, 0.4)), "vrgb"),
)
_GLASS: Colour = (58, 52, 46)
_TINY_PX_PER_M = 14.0
_SKIN: tuple[Colour, ...] = ((150, 178, 218), (120, 150, 196), (70, 98, 146), (44, 62, 98))
_HAIR: tuple[Colour, ...] = ((24, 28, 34), (36, 60, 92), (90, 130, 170), (130, 132, 134))
_HELMETS: tuple[Colour, ...] = ((230, 230, 230), (40, 40, 190), (30, 30, 34))
_CLOTH: tuple[Colour, ...] = (
    (34, 32, 32), (52, 46, 44), (110, 66, 36), (44, 44, 120), (62, 84, 62),
    (150, 150, 148), (206, 206, 204), (36, 90, 150), (120, 60, 110), (28, 28, 64),
)  # fmt: skip


def car_shape(style: float) -> tuple[float, Profile, str]:
    """Width, profile and pieces of the car that a style stands for; buses are rare."""
    place = (style * 7.77) % 1
    return _PROFILES[0 if place < 0.4 else 1 if place < 0.68 else 2 if place < 0.84 else 3 if place < 0.95 else 4]


def paint_car(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """A car seen from the street: cross-pieces far to near, then the side that faces the camera."""
    width, profile, pieces = car_shape(item.style)
    d0, length = item.z - view.camera_z, profile[-1][0]
    if d0 + length < 2.0:
        return
    slot = canvas.take_slot(item.instance, CAR)
    away = item.heading > 0
    outline = [(d0 + (z if away else length - z), y) for z, y in profile]
    paint = CAR_PAINTS[int(item.style * 1013) % len(CAR_PAINTS)]
    lights = {"b": 0.8, "r": 1.12, "v": 0.78}
    left, right = item.x - width / 2, item.x + width / 2
    order = sorted(range(len(pieces)), key=lambda k: -(outline[k][0] + outline[k + 1][0]))
    if d0 > NEAR_M:
        _tyres(canvas, view, left, right, d0, slot)
    for k in order:
        (da, ya), (db, yb) = outline[k], outline[k + 1]
        if max(da, db) < NEAR_M:
            continue
        _cross_piece(canvas, view, (left, right), ((da, ya), (db, yb)), view.fade(paint, d0, lights.get(pieces[k], 0.9)), slot)
        if pieces[k] == "g":
            _cross_piece(canvas, view, (left + 0.12, right - 0.12), ((da, ya), (db, yb)), view.fade(_GLASS, d0), slot)
    middle = view.offset(d0 + length / 2) + item.x
    if abs(middle) > width / 2:
        _car_side(canvas, view, item, outline, pieces, left if middle > 0 else right, paint, look, slot)
    if d0 > NEAR_M:
        _car_end(canvas, view, item, (left, right), d0, profile, away, look, slot)


def _cross_piece(canvas: Canvas, view: View, sides: Point, edge: tuple[Point, Point], colour: Colour, slot: int) -> None:
    (left, right), ((da, ya), (db, yb)) = sides, edge
    corners = [(left, ya, da), (left, yb, db), (right, yb, db), (right, ya, da)]
    canvas.polygon([view.point(*corner) for corner in corners], colour, slot)


def _tyres(canvas: Canvas, view: View, left: float, right: float, d: float, slot: int) -> None:
    dark = view.fade((22, 22, 24), d)
    for x in (left + 0.04, right - 0.26):
        box = [(x, 0), (x, 0.45), (x + 0.22, 0.45), (x + 0.22, 0)]
        canvas.polygon([view.point(px, py, d + 0.25) for px, py in box], dark, slot)


def _car_side(
    canvas: Canvas,
    view: View,
    item: Item,
    outline: Sequence[tuple[float, float]],
    pieces: str,
    x: float,
    paint: Colour,
    look: Look,
    slot: int,
) -> None:
    near = min(d for d, _ in outline)
    sunny = (x < item.x) == (look.sun_side < 0)
    light = 1.0 if look.shadow == 1 else 1.1 if sunny else 0.7
    canvas.polygon([view.point(x, y, d) for d, y in clip_near(outline)], view.fade(paint, near, light), slot)
    belt, roof = 0.62 * max(y for _, y in outline), 0.94 * max(y for _, y in outline)
    upper = [(d, y) for d, y in outline if y > belt * 1.2]
    if len(upper) >= 2 and "v" not in pieces:
        low, high = min(d for d, _ in upper), max(d for d, _ in upper)
        pane = [(low - 0.1, belt), (low + 0.25, roof), (high - 0.3, roof), (high + 0.1, belt)]
        canvas.polygon([view.point(x, y, d) for d, y in clip_near(pane)], view.fade(_GLASS, near), slot)
        post = (low + high) / 2
        foot, top = view.point(x, belt, post), view.point(x, roof, post)
        canvas.line(foot, top, view.scale(post) * 0.07, view.fade(paint, near, light), slot)
    elif len(pieces) == 4:
        band = [(near + 0.3, 1.5), (near + 0.3, 2.4), (near + 9.3, 2.4), (near + 9.3, 1.5)]
        canvas.polygon([view.point(x, y, d) for d, y in clip_near(band)], view.fade(_GLASS, near), slot)
    length = outline[-1][0] - outline[0][0]
    for share in (0.19, 0.81):
        d = outline[0][0] + share * length
        if d > 2 * NEAR_M:
            for radius, colour in ((0.34, (20, 20, 22)), (0.2, (120, 122, 124))):
                rim = [view.point(x, 0.33 + radius * sin(k * pi / 6), d + radius * cos(k * pi / 6)) for k in range(12)]
                canvas.polygon(rim, view.fade(colour, d), slot)


def _car_end(
    canvas: Canvas, view: View, item: Item, sides: Point, d: float, profile: Profile, away: bool, look: Look, slot: int
) -> None:
    """Lamps, plate and bumper on the end towards the camera."""
    left, right = sides
    level = 0.7 * profile[1][1] if away else 0.8 * profile[-2][1]
    beam = look.lit > 0.3
    lamp: Colour = ((60, 60, 235) if beam else (40, 40, 165)) if away else ((255, 255, 255) if beam else (205, 212, 215))
    for x in (left + 0.2, right - 0.2):
        box = [(x - 0.14, level - 0.07), (x - 0.14, level + 0.08), (x + 0.14, level + 0.08), (x + 0.14, level - 0.07)]
        canvas.polygon([view.point(px, py, d) for px, py in box], view.fade(lamp, d * 0.5), slot)
    plate = (60, 200, 225) if away else (225, 228, 228)
    low = 0.45
    box = [(item.x - 0.26, low), (item.x - 0.26, low + 0.12), (item.x + 0.26, low + 0.12), (item.x + 0.26, low)]
    canvas.polygon([view.point(px, py, d) for px, py in box], view.fade(plate, d), slot)
    skirt = [(left, 0.3), (left, 0.38), (right, 0.38), (right, 0.3)]
    canvas.polygon([view.point(px, py, d) for px, py in skirt], view.fade((30, 30, 32), d), slot)


class _Body:
    """Bones of one figure in its own axes, drawn into the street."""

    def __init__(self, canvas: Canvas, view: View, item: Item, slot: int, size: float) -> None:
        self.canvas, self.view, self.item, self.slot, self.size = canvas, view, item, slot, size
        self.d = item.z - view.camera_z
        angle = {1.0: 0.0, -1.0: pi, 0.0: pi / 2, 2.0: -pi / 2}.get(item.heading, item.style * 6.2)
        self._cos, self._sin = cos(angle), sin(angle)
        self._scale = view.scale(self.d) * size
        self._cos, self._sin = self._cos * size, self._sin * size

    @property
    def tiny(self) -> bool:
        """Whether it is so far that limbs are thinner than a pixel."""
        return self._scale < _TINY_PX_PER_M

    def at(self, bone: Bone) -> Point:
        forward, side, up = bone
        x = self.item.x + forward * self._sin + side * self._cos
        return self.view.point(x, up * self.size, self.d + forward * self._cos - side * self._sin)

    def limb(self, joints: Sequence[Bone], thick: float, colour: Colour) -> None:
        shown = self.view.fade(colour, self.d)
        points = [self.at(joint) for joint in joints]
        for start, end in pairwise(points):
            self.canvas.line(start, end, thick * self._scale, shown, self.slot)

    def ball(self, centre: Bone, radius: float, colour: Colour) -> None:
        self.canvas.disc(self.at(centre), radius * self._scale, self.view.fade(colour, self.d), self.slot)

    def shape(self, corners: Sequence[Bone], colour: Colour) -> None:
        self.canvas.polygon([self.at(corner) for corner in corners], self.view.fade(colour, self.d), self.slot)

    def ring(self, centre: Bone, radius: float, thick: float, colour: Colour) -> None:
        forward, side, up = centre
        rim = [self.at((forward + radius * cos(k * pi / 8), side, up + radius * sin(k * pi / 8))) for k in range(16)]
        self.canvas.outline(rim, thick * self._scale, self.view.fade(colour, self.d), self.slot)


def _pick(style: float, factor: float, options: Sequence[Colour]) -> Colour:
    return options[int(style * factor) % len(options)]


def paint_person(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """Somebody walking (or standing, with a small fixed stride)."""
    if item.z - view.camera_z < 2.0:
        return
    style = item.style
    body = _Body(canvas, view, item, canvas.take_slot(item.instance, PEDESTRIAN), 0.62 + 0.42 * min(1.0, 0.55 + (style * 3.3) % 1))
    top, legs, skin = _pick(style, 577, _CLOTH), _pick(style, 211, _CLOTH), _pick(style, 97, _SKIN)
    if body.tiny:
        body.limb([(0, 0, 0.1), (0, 0, 0.85)], 0.3, legs)
        body.limb([(0, 0, 0.95), (0, 0, 1.38)], 0.44, top)
        body.ball((0, 0, 1.66), 0.12, _pick(style, 61, _HAIR))
        return
    swing, sleeve = 0.3 * sin(item.phase), (0.85 * top[0], 0.85 * top[1], 0.85 * top[2])
    lift = 0.1 * max(0.0, cos(item.phase))
    skirt = (style * 23) % 1 < 0.2
    for way, side, raised in ((-1, -0.09, 0.1 - lift), (1, 0.09, lift)):
        hip, knee = (0, side, 0.92), (0.55 * way * swing + 0.06, side, 0.5)
        body.limb([hip, knee, (way * swing, side, 0.06 + max(0.0, raised))], 0.15, legs)
        body.limb([(way * swing, side, 0.05), (way * swing + 0.14, side, 0.04)], 0.09, (24, 24, 28))
    body.limb([(-0.8 * swing, 0.25, 0.9), (-0.3 * swing - 0.03, 0.26, 1.15), (0, 0.2, 1.42)], 0.1, top)
    wide = 0.21 + 0.05 * ((style * 41) % 1)
    hem = 0.62 if skirt else 0.84
    for across in ((0, 1), (1, 0)):  # two crossed sheets, so that a body has width from any side
        f, s = across[0] * 0.13, across[1] * wide
        edge = [(f, s * 0.85, hem), (f, s, 1.42), (f * 0.4, s * 0.4, 1.5)]
        body.shape([*edge, *((-x, -y, up) for x, y, up in reversed(edge))], top)
    body.limb([(0, 0, 1.1), (0, 0, 1.36)], 0.3, top)
    body.limb([(0.8 * swing, -0.25, 0.9), (0.3 * swing - 0.03, -0.26, 1.15), (0, -0.2, 1.42)], 0.1, sleeve)
    body.limb([(0, 0, 1.5), (0.01, 0, 1.58)], 0.11, skin)
    body.ball((0.02, 0, 1.66), 0.115, skin)
    body.ball((-0.02 if item.heading < 0 else -0.05, 0, 1.71), 0.105, _pick(style, 61, _HAIR))
    if (style * 29) % 1 < 0.3:
        body.limb([(-0.05, 0.3, 0.75), (-0.02, 0.3, 0.95)], 0.22, _pick(style, 433, _CLOTH))


def paint_bicycle(canvas: Canvas, view: View, item: Item, look: Look) -> None:
    """A cyclist with the bicycle; both are labelled bicyclist."""
    if item.z - view.camera_z < 2.2:
        return
    style, phase = item.style, item.phase
    body = _Body(canvas, view, item, canvas.take_slot(item.instance, BICYCLIST), 0.95 + 0.1 * style)
    frame = _pick(style, 877, ((40, 40, 170), (160, 70, 30), (30, 30, 32), (200, 200, 200), (60, 140, 40)))
    bright = (style * 19) % 1 < 0.35
    top: Colour = (40, 225, 215) if bright else _pick(style, 577, _CLOTH)
    legs, skin = _pick(style, 211, _CLOTH), _pick(style, 97, _SKIN)
    if body.tiny:
        body.limb([(-0.5, 0, 0.1), (0.5, 0, 0.1)], 0.2, (22, 22, 24))
        body.limb([(0, 0, 0.2), (-0.1, 0, 0.9), (0.15, 0, 1.35)], 0.36, top)
        body.ball((0.2, 0, 1.6), 0.12, skin)
        return
    sleeve = 0.85 * top[0], 0.85 * top[1], 0.85 * top[2]
    for hub in (-0.5, 0.54):
        body.ring((hub, 0, 0.34), 0.34, 0.045, (22, 22, 24))
    bars = [(-0.5, 0, 0.34), (-0.14, 0, 0.86), (0.38, 0, 0.84), (0.0, 0, 0.32), (-0.14, 0, 0.86)]
    body.limb(bars, 0.035, frame)
    body.limb([(-0.5, 0, 0.34), (0.0, 0, 0.32)], 0.03, frame)
    body.limb([(0.54, 0, 0.34), (0.36, 0, 0.98)], 0.035, frame)
    body.limb([(0.4, -0.27, 1.0), (0.36, 0, 0.98), (0.4, 0.27, 1.0)], 0.035, (30, 30, 32))
    for side, turn in ((-0.1, phase), (0.1, phase + pi)):
        foot = (0.04 + 0.16 * cos(turn), side, 0.32 + 0.16 * sin(turn))
        knee = (0.28 + 0.08 * cos(turn), side * 1.3, 0.74 + 0.1 * sin(turn))
        body.limb([(-0.12, side, 0.95), knee, foot], 0.14, legs)
        body.limb([foot, (foot[0] + 0.13, side, foot[2])], 0.08, (24, 24, 28))
    lean = 0.12 + 0.22 * style
    body.limb([(lean, -0.18, 1.4), (0.2 + lean * 0.5, -0.28, 1.15), (0.4, -0.25, 1.02)], 0.09, sleeve)
    body.limb([(lean, 0.18, 1.4), (0.2 + lean * 0.5, 0.28, 1.15), (0.4, 0.25, 1.02)], 0.09, top)
    body.shape([(-0.14, -0.17, 0.9), (lean, -0.21, 1.44), (lean, 0.21, 1.44), (-0.14, 0.17, 0.9)], top)
    body.limb([(-0.12, 0, 1.0), (lean - 0.02, 0, 1.36)], 0.28, top)
    head = lean + 0.1
    body.ball((head, 0, 1.6), 0.115, skin)
    helmet = (style * 31) % 1 < 0.5
    body.ball((head - 0.03, 0, 1.66), 0.12 if helmet else 0.1, _pick(style, 71, _HELMETS if helmet else _HAIR))
