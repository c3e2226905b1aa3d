"""What stands and moves in a procedural street: a pure function of seed, place and time.

The street is endless: it is made of chunks of 24 m, each drawn from ``(seed, chunk)``, and of streams of traffic whose n-th
member is at a position that is a formula of time. So any moment can be rendered without the ones before it, and ids stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, pi, sin

import numpy as np

from edgeseg.data.streets_view import Colour

CHUNK_M = 24.0
JUNCTION_M = 8.0
FPS = 30.0
_STREAM_IDS = 100_000

CAR_PAINTS: tuple[Colour, ...] = (
    (190, 192, 195), (225, 228, 230), (40, 40, 44), (96, 98, 102), (140, 70, 30), (110, 40, 20), (30, 30, 150), (40, 40, 96),
    (60, 110, 60), (130, 160, 180), (20, 120, 200), (150, 140, 60),
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """Something upright at a place.

    Attributes:
        kind: what to draw, e.g. ``building``, ``tree``, ``car``.
        x, z: place in metres; z is along the street, absolute.
        size: extent in metres whose meaning is the kind's own (length along z for buildings, hedges and fences).
        side: -1 left of the street, +1 right.
        style: a number in 0..1 that every free choice of the drawing hangs on.
        instance: id of a thing that is stable over time, 0 for stuff.
        heading: -1 facing the camera, +1 facing away, 0 crossing to the right.
        phase: of the gait or the pedals, radians.
    """

    kind: str
    x: float
    z: float
    size: float = 0.0
    side: int = 1
    style: float = 0.0
    instance: int = 0
    heading: float = 1.0
    phase: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The choices that hold for a whole seed: widths in metres, densities in 0..1, speeds in metres a second."""

    lane_side: int
    half_road: float
    parking: tuple[bool, bool]
    pavement: tuple[float, float]
    verge: tuple[bool, bool]
    town: float
    trees: float
    bare: bool
    crowd: float
    cyclists: float
    traffic: float
    fences: float
    speed: float
    surge: float
    bend: float
    bend_period_m: float
    leader: bool
    double_lines: bool

    def kerb(self, side: int) -> float:
        """|x| of the kerb on a side."""
        return self.half_road + (2.1 if self.parking[side > 0] else 0.0)

    def wall(self, side: int) -> float:
        """|x| of the building line on a side."""
        return self.kerb(side) + self.pavement[side > 0]


class World:
    """The street of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 1])
        self.plan = _plan(rng)
        self.start_z = float(rng.uniform(0, 2000))
        self.chunk = lru_cache(maxsize=64)(self._chunk)

    def camera_z(self, time_s: float) -> float:
        """Distance driven; speed swings but never turns back."""
        plan = self.plan
        return self.start_z + plan.speed * (time_s + plan.surge * sin(time_s / 2.3) * 2.3)

    def bend(self, z: float) -> float:
        """Curvature of the street at ``z`` in 1/m."""
        return self.plan.bend * sin(2 * pi * z / self.plan.bend_period_m)

    def junction(self, index: int) -> bool:
        """Whether chunk ``index`` begins with a side road, ``JUNCTION_M`` long."""
        return index % 3 == 0 and bool(np.random.default_rng([self.seed, 2, index % (1 << 31)]).random() < 0.6)

    def visible(self, time_s: float, camera_z: float, far_m: float) -> Iterator[Item]:
        """Every item from just behind the camera to ``far_m`` ahead, in no order."""
        for index in range(floor((camera_z - 12) / CHUNK_M), floor((camera_z + far_m) / CHUNK_M) + 1):
            for item in self.chunk(index):
                if camera_z - 10 < item.z + item.size and item.z < camera_z + far_m:
                    yield item
        yield from self._streams(time_s, camera_z, far_m)

    # -- what stands ------------------------------------------------------------------------------------------------
    def _chunk(self, index: int) -> tuple[Item, ...]:
        rng = np.random.default_rng([self.seed, 3, index % (1 << 31)])
        begin, end = index * CHUNK_M, (index + 1) * CHUNK_M
        items: list[Item] = []
        if self.junction(index):
            items += self._junction_items(rng, begin)
            begin += JUNCTION_M
        for side in (-1, 1):
            items += self._edge(rng, side, begin, end)
            items += self._pavement(rng, side, begin, end, index)
        return tuple(items)

    def _junction_items(self, rng: np.random.Generator, z: float) -> list[Item]:
        kind = "light" if rng.random() < 0.6 else "sign"
        places = [(side, z + offset) for side in (-1, 1) for offset in (-0.8, JUNCTION_M + 0.8)]
        return [Item(kind, side * (self.plan.kerb(side) + 0.5), place, side=side, style=rng.random()) for side, place in places]

    def _edge(self, rng: np.random.Generator, side: int, begin: float, end: float) -> list[Item]:
        """What closes the street sideways: house fronts, or a park with a hedge or a fence."""
        plan, wall = self.plan, self.plan.wall(side)
        if rng.random() > plan.town:
            kind = "fence" if rng.random() < 0.35 + plan.fences else "hedge"
            items = [Item(kind, side * (wall + 0.2), begin, end - begin, side, rng.random())]
            for z in np.arange(begin + 2, end, rng.uniform(4, 7)):
                items.append(Item("tree", side * (wall + rng.uniform(2, 7)), float(z), 0, side, rng.random()))
            return [*items, Item("building", side * (wall + rng.uniform(14, 22)), begin, end - begin, side, rng.random())]
        items, z = [], begin
        garden = rng.uniform(2.5, 5) if rng.random() < plan.fences else 0.0
        while z < end - 3:
            width = min(float(rng.uniform(5, 13)), end - z)
            width = end - z if end - z - width < 4 else width
            items.append(Item("building", side * (wall + garden + rng.uniform(0, 0.3)), z, width, side, rng.random()))
            z += width
        if garden:
            kind = "fence" if rng.random() < 0.7 else "hedge"
            items.append(Item(kind, side * (wall + 0.1), begin, end - begin, side, rng.random()))
        return items

    def _pavement(self, rng: np.random.Generator, side: int, begin: float, end: float, index: int) -> list[Item]:
        plan, kerb = self.plan, self.plan.kerb(side)
        items = [Item("lamp", side * (kerb + 0.45), begin + 11, side=side, style=rng.random())] if (index + (side > 0)) % 2 else []
        for z in np.arange(begin + 3, end - 1, 7.5):
            if rng.random() < plan.trees and plan.pavement[side > 0] > 2.2:
                items.append(Item("tree", side * (kerb + 0.8), float(z), side=side, style=rng.random()))
        for z in rng.uniform(begin, end, rng.poisson(1.1)):
            items.append(Item("sign", side * (kerb + rng.uniform(0.3, 0.6)), float(z), side=side, style=rng.random()))
        if rng.random() < 0.3:
            items += [Item("bollard", side * (kerb + 0.3), float(z), side=side, style=0.5) for z in np.arange(begin + 1, end, 1.9)]
        elif rng.random() < plan.fences * 0.6:
            items.append(Item("railing", side * (kerb + 0.25), begin + 1, end - begin - 2, side, rng.random()))
        if plan.parking[side > 0]:
            items += self._parked(rng, side, begin, end, index)
        for number in range(rng.poisson(plan.crowd * 1.6)):
            x = side * (kerb + rng.uniform(0.7, max(0.9, plan.pavement[side > 0] - 0.4)))
            instance = _id(1 + (side > 0), index * 16 + number)
            items.append(Item("person", x, float(rng.uniform(begin, end)), 0, side, rng.random(), instance, 9.0, 0.4))
        return items

    def _parked(self, rng: np.random.Generator, side: int, begin: float, end: float, index: int) -> list[Item]:
        items, away = [], 1.0 if side == self.plan.lane_side else -1.0
        for number, z in enumerate(np.arange(begin + 0.6, end - 5.2, 5.9)):
            style, facing = rng.random(), away if rng.random() < 0.8 else -away
            if rng.random() < 0.65:
                instance = _id(3 + (side > 0), index * 4 + number)
                items.append(Item("car", side * (self.plan.kerb(side) - 1.1), float(z), 0, side, style * 0.9, instance, facing))
        return items

    # -- what moves -------------------------------------------------------------------------------------------------
    def _streams(self, time_s: float, camera_z: float, far_m: float) -> Iterator[Item]:
        plan, lane = self.plan, self.plan.lane_side
        oncoming = -lane * plan.half_road * 0.5
        for n, z, style in self._stream(5, time_s, camera_z, far_m, 44 - 30 * plan.traffic, -9.0):
            yield Item("car", oncoming, z, style=style, instance=_id(5, n), heading=-1.0)
        for key, way, gap, speed in ((6, 1.0, 90 - 60 * plan.cyclists, 3.9), (7, -1.0, 126 - 84 * plan.cyclists, -4.3)):
            x = way * lane * (plan.half_road - 0.55)
            for n, z, style in self._stream(key, time_s, camera_z, far_m, gap, speed):
                yield Item("bicycle", x, z, style=style, instance=_id(key, n), heading=way, phase=4 * time_s + n)
        for stream, side in ((8, -1), (9, 1)):
            yield from self._walkers(stream, side, time_s, camera_z, far_m)
        yield from self._crossing(time_s, camera_z)
        if plan.leader:
            ahead = 15 + 6 * sin(time_s / 3.1 + self.start_z)
            yield Item("car", lane * plan.half_road * 0.5, camera_z + ahead, style=(self.start_z * 0.618) % 1, instance=_id(11, 0))

    def _walkers(self, stream: int, side: int, time_s: float, camera_z: float, far_m: float) -> Iterator[Item]:
        plan = self.plan
        inner, width = plan.kerb(side) + 0.7, max(0.2, plan.pavement[side > 0] - 1.1)
        for towards in (-1.0, 1.0):
            key = 2 * stream + (towards > 0)
            for n, z, style in self._stream(key, time_s, camera_z, far_m, 34 - 28 * plan.crowd, towards * 1.35):
                x = side * (inner + width * ((style * 7.3) % 1))
                phase = 5.6 * time_s + 40 * style
                yield Item("person", x, z, side=side, style=style, instance=_id(key, n), heading=towards, phase=phase)

    def _crossing(self, time_s: float, camera_z: float) -> Iterator[Item]:
        """People who cross the road well ahead and are gone before the camera comes."""
        first, reach = floor((camera_z + 12) / 40), self.plan.kerb(1) + 1.2
        for n in range(first, first + 3):
            rng = np.random.default_rng([self.seed, 40, n % (1 << 31)])
            kind = "bicycle" if rng.random() < 0.35 else "person"
            z, way, pace, style = n * 40 + rng.uniform(0, 30), rng.choice([-1.0, 1.0]), rng.uniform(1.2, 1.8), rng.random()
            if rng.random() > 0.35 + 0.5 * self.plan.crowd:
                continue
            elapsed = (62 - (z - camera_z)) / self.plan.speed
            x = -reach + pace * (2.2 if kind == "bicycle" else 1.0) * elapsed
            if abs(x) < reach:
                heading = 0.0 if way > 0 else 2.0
                yield Item(kind, x * way, z, 0, 1, style, _id(40, n), heading, 5.6 * time_s + 30 * style)

    def _stream(
        self, key: int, time_s: float, camera_z: float, far_m: float, gap_m: float, speed: float
    ) -> Iterator[tuple[int, float, float]]:
        """Number, z and style of the members in view of an endless row that moves at one speed."""
        drift = speed * time_s + (self.seed * 37 + key * 11) % 97
        for n in range(ceil((camera_z - 8 - drift) / gap_m) - 1, floor((camera_z + far_m - drift) / gap_m) + 1):
            rng = np.random.default_rng([self.seed, 5, key, n % (1 << 31)])
            z = (n + 0.7 * rng.random()) * gap_m + drift
            if camera_z - 8 < z < camera_z + far_m:
                yield n, z, float(rng.random())


def _id(stream: int, number: int) -> int:
    """A positive id, unique over streams and, within one, over 100,000 members."""
    return stream * _STREAM_IDS + (number + _STREAM_IDS // 2) % _STREAM_IDS + 1


def _plan(rng: np.random.Generator) -> Plan:
    def chance(p: float) -> bool:
        return bool(rng.random() < p)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    return Plan(
        lane_side=-1 if chance(0.5) else 1,
        half_road=between(2.8, 4.2),
        parking=(chance(0.4), chance(0.4)),
        pavement=(between(2.2, 5.5), between(2.2, 5.5)),
        verge=(chance(0.12), chance(0.12)),
        town=between(0.35, 1.0),
        trees=between(0.0, 0.6) if chance(0.7) else 0.0,
        bare=chance(0.35),
        crowd=between(0.15, 1.0),
        cyclists=between(0.3, 1.0),
        traffic=between(0.0, 1.0),
        fences=between(0.1, 0.6),
        speed=between(4.0, 12.0),
        surge=between(0.0, 0.6),
        bend=between(-1, 1) * 0.006,
        bend_period_m=between(150, 500),
        leader=chance(0.35),
        double_lines=chance(0.4),
    )
