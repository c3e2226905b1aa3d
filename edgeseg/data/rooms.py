"""Procedural rooms: labelled indoor pictures with depth, objects and keypoints, made of arithmetic alone; nothing to download.

A seed fixes a room, what stands in it, its light and the camera. Rays are cast against solids in closed form, so that labels,
masks and depth are exact. The same seed and size give the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.data import rgbd
from edgeseg.data.base import IGNORE, Dataset, Sample
from edgeseg.data.rooms_figures import KEYPOINTS
from edgeseg.data.rooms_paint import PAINTING, THING, paint
from edgeseg.data.rooms_plan import Crowd, Plan, make_plan
from edgeseg.data.rooms_things import KINDS
from edgeseg.data.rooms_view import Buffers, Floats
from edgeseg.errors import DataError
from edgeseg.manifest import ClassInfo, LabelSpace, Modality, Task
from edgeseg.scene import VOID, Instances, Panoptic, Segment, mask_boxes

_MIN_SIDE, _MAX_SIDE = 32, 4096
_STUFF = (
    ("floor", (128, 96, 64)), ("wall", (190, 190, 170)), ("ceiling", (110, 110, 130)), ("window", (90, 170, 230)),
    ("painting", (200, 120, 200)),
)  # fmt: skip
_THINGS = {"person": (220, 40, 60), "ball": (250, 170, 30), "box": (150, 90, 30), "cone": (240, 100, 20), "lamp": (250, 240, 110)}
_PERSON = KINDS.index("person")
GEOMETRY = LabelSpace(
    name="geometry",
    classes=[
        ClassInfo(name="horizontal", colour=(80, 160, 80)),
        ClassInfo(name="vertical", colour=(90, 110, 200)),
        ClassInfo(name="rounded", colour=(220, 140, 60)),
    ],
)
# Splits never share a seed.
_SPLIT_SEEDS = {"train": (0, 800), "val": (100_000, 100), "test": (200_000, 200)}
_SMALLEST = 10 / (160 * 120)
_STUFF_IDS = 1
_THING_IDS = 100


@dataclass(frozen=True)
class RoomFrame:
    """One picture of a room.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8: 0..4 stuff (floor, wall, ceiling, window, painting), 5..9 things in the order of ``KINDS``;
            255 where less than one pixel in 2,000 of a thing shows.
        geometry: (H, W) uint8: 0 level faces, 1 upright planes, 2 rounded or sloping surfaces.
        things: (H, W) int16, index into ``plan.things``, -1 for stuff and for what is ignored.
        depth: (H, W) float32, metres along the camera's axis, exact.
        intrinsics: fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0).
        gravity: downwards in camera axes (x right, y down, z forward).
        plan: what was painted.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    geometry: NDArray[np.uint8]
    things: NDArray[np.int16]
    depth: Floats
    intrinsics: rgbd.Intrinsics
    gravity: rgbd.Vector
    plan: Plan

    def keypoints(self, number: int) -> Floats:
        """(8, 3) x, y, v of a person: 2 seen, 1 hidden by something or by the person, 0 outside the picture."""
        thing, (height, width) = self.plan.things[number], self.depth.shape
        if thing.keypoints is None:
            return np.zeros((len(KEYPOINTS.names), 3), np.float32)
        points = self.plan.camera.project(thing.keypoints)
        column, row = np.floor(points[:, 0]).astype(int), np.floor(points[:, 1]).astype(int)
        inside = (points[:, 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        column, row = np.where(inside, column, 0), np.where(inside, row, 0)
        # A joint lies inside flesh: it shows unless what is seen there is nearer than the skin around it.
        seen = self.depth[row, column] > points[:, 2] - thing.flesh - 0.03
        v = np.where(inside, np.where(seen, 2, 1), 0)
        return np.where(inside[:, None], np.stack([points[:, 0], points[:, 1], v], 1), 0).astype(np.float32)


def render(seed: int, width: int, height: int, crowd: Crowd = "mixed", dark: bool = False) -> RoomFrame:
    """The room of a seed.

    Args:
        width, height: pixels, 32..4096.
        crowd: see ``edgeseg.data.rooms_plan.Crowd``.
        dark: the same picture with next to no light.

    Raises:
        DataError: a size or seed out of range.
    """
    if not (_MIN_SIDE <= width <= _MAX_SIDE and _MIN_SIDE <= height <= _MAX_SIDE):
        raise DataError(f"rooms of {width}x{height} px", f"{_MIN_SIDE}..{_MAX_SIDE} px a side", "give rooms:WIDTHxHEIGHT")
    if seed < 0:
        raise DataError(f"room seed {seed}", "an integer >= 0")
    plan = make_plan(seed, width, height, crowd, dark)
    buffers, light = paint(plan, np.random.default_rng([seed, 14]))
    image = plan.sensor.expose(light, np.random.default_rng([seed, 15]))
    labels, things = _without_slivers(buffers, len(plan.things))
    camera = plan.camera
    intrinsics = camera.focal, camera.focal, width / 2 - 0.5, height / 2 - 0.5
    return RoomFrame(image, labels, _geometry(buffers), things, buffers.depth, intrinsics, camera.gravity, plan)


def _without_slivers(buffers: Buffers, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Labels and things without those of which next to nothing shows: these are ignored."""
    areas = np.bincount(buffers.thing.ravel() + 1, minlength=count + 1)
    lost = areas < _SMALLEST * buffers.depth.size
    lost[0] = False
    hidden = lost[buffers.thing + 1]
    return np.where(hidden, IGNORE, buffers.label).astype(np.uint8), np.where(hidden, -1, buffers.thing).astype(np.int16)


def _geometry(buffers: Buffers) -> NDArray[np.uint8]:
    rounded = buffers.label >= THING
    rounded &= buffers.label != THING + KINDS.index("box")
    level = np.abs(buffers.normal[1]) > 0.9
    return np.where(rounded, 2, np.where(level, 0, 1)).astype(np.uint8)


class Rooms(Dataset):
    """``rooms``, or ``rooms:`` and words joined by commas: splits train (800), val (100), test (200).

    Words: ``WxH`` (160x120); ``SEED`` 0..99, which moves all rooms at once; ``dark``: next to no light, while depth is as ever;
    one of ``rgbd``, ``hha`` and ``rgb-hha``: the image's modality, from depth as a sensor measures it; ``people``: one to three
    people a picture, who are the only things (all other classes are stuff); ``sparse``: one or two kinds of things a picture,
    and one class "background" for all that is no thing; ``geometry``: a second label space.
    """

    name = "rooms"
    licence = "none needed (procedural)"
    tasks: tuple[Task, ...] = ("semantic", "detection", "instance", "keypoint", "panoptic")
    keypoints = KEYPOINTS

    def __init__(self, options: str, split: str) -> None:
        if split not in _SPLIT_SEEDS:
            raise DataError(f"rooms: no split {split!r}", ", ".join(_SPLIT_SEEDS), "choose one of them")
        self.split = split
        self.uri = f"rooms:{options}" if options else "rooms"
        words = _Words.parse(options)
        self.width, self.height, self.modality = words.width, words.height, words.modality
        self._crowd, self._dark = words.crowd, words.dark
        self.spaces = (GEOMETRY,) if words.geometry else ()
        self.classes, self._codes = _classes(words.crowd)
        first, self._count = _SPLIT_SEEDS[split]
        self._first = first + 1000 * words.variant
        self._prefix = f"{words.variant}/{split}" if words.variant else split

    def ids(self) -> list[str]:
        return [f"{self._prefix}/{index:04d}" for index in range(self._count)]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        frame = self.frame(index)
        labels = self._codes[frame.labels]
        instances, panoptic = self._scene(frame, labels)
        spaces = (np.where(labels == IGNORE, IGNORE, frame.geometry).astype(np.uint8),) if self.spaces else ()
        return Sample(self._image(frame, index), labels, f"{self._prefix}/{index:04d}", instances, panoptic, spaces)

    def frame(self, index: int) -> RoomFrame:
        """The picture with its depth and camera."""
        return render(self._first + index, self.width, self.height, self._crowd, self._dark)

    def _image(self, frame: RoomFrame, index: int) -> NDArray[np.uint8]:
        if self.modality == "rgb":
            return frame.image
        measured = sense_depth(frame.depth, np.random.default_rng([self._first + index, 16]))
        return rgbd.pack(frame.image, measured, frame.intrinsics, self.modality)

    def _scene(self, frame: RoomFrame, labels: NDArray[np.uint8]) -> tuple[Instances, Panoptic]:
        """Objects and segments; a class that is no thing here is one segment."""
        shown = [int(number) for number in np.unique(frame.things) if number >= 0]
        objects = [number for number in shown if self.classes[self._label(frame, number)].thing]
        masks = np.stack([frame.things == number for number in objects]) if objects else np.zeros((0, *labels.shape), bool)
        masks = masks.astype(np.uint8)
        classes = np.array([self._label(frame, number) for number in objects], np.int64)
        points = np.array([frame.keypoints(number) for number in objects], np.float32).reshape(-1, len(KEYPOINTS.names), 3)
        ids = np.where(labels == IGNORE, VOID, labels.astype(np.int32) + _STUFF_IDS).astype(np.int32)
        for place, number in enumerate(objects):
            ids[frame.things == number] = _THING_IDS + place
        stuff = [Segment(int(value), int(value) - _STUFF_IDS) for value in np.unique(ids) if VOID < value < _THING_IDS]
        segments = (*stuff, *(Segment(_THING_IDS + place, int(label)) for place, label in enumerate(classes)))
        return Instances(mask_boxes(masks), classes, masks=masks, keypoints=points), Panoptic(ids, segments)

    def _label(self, frame: RoomFrame, number: int) -> int:
        return int(self._codes[THING + KINDS.index(frame.plan.things[number].kind)])


def sense_depth(depth: Floats, rng: np.random.Generator) -> Floats:
    """Depth (H, W) float32 m as a structured-light sensor measures it; 0 where it sees nothing.

    The error grows with the square of the distance, 1.5 mm at 1 m (Khoshelham and Elberink, Sensors 2012, equation 7), and
    pixels at the far side of a step (the projector's shadow) are lost, as is what lies beyond 10 m.
    """
    noisy = depth + rng.standard_normal(depth.shape, dtype=np.float32) * np.float32(0.0015) * depth**2
    step = np.zeros(depth.shape, bool)
    step[:, 1:] = depth[:, 1:] - depth[:, :-1] > 0.08 * depth[:, 1:]
    return np.where(step | (noisy > rgbd.FAR_M), 0, noisy).astype(np.float32)


def _classes(crowd: Crowd) -> tuple[tuple[ClassInfo, ...], NDArray[np.uint8]]:
    """The classes, and each class index (256) of a frame's labels."""
    stuff = [ClassInfo(name=name, colour=colour) for name, colour in _STUFF]
    things = [ClassInfo(name=kind, colour=_THINGS[kind], thing=crowd != "people" or kind == "person") for kind in KINDS]
    codes = np.full(256, IGNORE, np.uint8)
    if crowd == "sparse":
        codes[: PAINTING + 1] = 0
        codes[THING : THING + len(KINDS)] = 1 + np.arange(len(KINDS))
        return (ClassInfo(name="background", colour=(60, 60, 60)), *things), codes
    codes[: THING + len(KINDS)] = np.arange(THING + len(KINDS))
    return (*stuff, *things), codes


@dataclass
class _Words:
    width: int = 160
    height: int = 120
    variant: int = 0
    modality: Modality = "rgb"
    crowd: Crowd = "mixed"
    dark: bool = False
    geometry: bool = False

    @classmethod
    def parse(cls, options: str) -> _Words:
        found = cls()
        for word in filter(None, options.split(",")):
            found._take(word, options)
        if not 0 <= found.variant < 100:
            raise DataError(f"rooms:{options}: seed {found.variant}", "0..99")
        return found

    def _take(self, word: str, options: str) -> None:
        if word in ("rgb", "rgbd", "hha", "rgb-hha"):
            self.modality = word  # type: ignore[assignment]
        elif word in ("people", "sparse"):
            self.crowd = word  # type: ignore[assignment]
        elif word in ("dark", "geometry"):
            setattr(self, word, True)
        elif word.replace("x", "", 1).isdecimal() and not word.startswith("x") and not word.endswith("x"):
            if "x" in word:
                self.width, self.height = (int(side) for side in word.split("x"))
            else:
                self.variant = int(word)
        else:
            known = "WxH, SEED, dark, geometry, people, sparse, rgbd, hha, rgb-hha"
            raise DataError(f"rooms:{options}: word {word!r}", f"words of {known} joined by commas")
