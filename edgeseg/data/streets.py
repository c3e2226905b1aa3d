"""Procedural street scenes: labelled, moving, endless, and made of arithmetic alone; nothing to download.

A seed fixes a street, its light and its camera; ``render(t)`` paints frame number ``t`` at 30 frames a second, with the
eleven classes of CamVid. The same seed, size and ``t`` give the same frame, whatever was rendered before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data import streets_figures as figures
from edgeseg.data import streets_static as static
from edgeseg.data.base import Dataset, Sample
from edgeseg.data.camvid import CLASSES
from edgeseg.data.streets_look import Sensor, make_look
from edgeseg.data.streets_view import FAR_M, Canvas, View
from edgeseg.data.streets_world import FPS, Item, World
from edgeseg.errors import DataError, SourceError
from edgeseg.files import atomic_path
from edgeseg.scene import Instances, Panoptic, Segment, mask_boxes

THINGS = (static.CAR, static.PEDESTRIAN, static.BICYCLIST)
_MIN_SIDE, _MAX_SIDE = 32, 4096

# Splits never share a seed. Seeds of 10**6 and more are for clips and for trying things out.
_SPLIT_SEEDS = {"train": (0, 800), "val": (100_000, 100), "test": (200_000, 200)}
CLIP_SEED = 1_000_006


@dataclass(frozen=True)
class StreetFrame:
    """One rendered moment.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: (H, W) uint8, class index 0..10; there is no ignored pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    _slots: NDArray[np.uint8]
    _ids: NDArray[np.int32]

    @cached_property
    def instances(self) -> NDArray[np.int32]:
        """(H, W) int32, 0 for stuff, else the id of a car, pedestrian or bicyclist, the same in every frame."""
        return np.asarray(self._ids[self._slots], np.int32)

    def panoptic(self) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
        """COCO panoptic form: (H, W) int32 segment ids, and per segment id, category_id, isthing, area (px), bbox (x, y, w, h).

        A thing's segment id is its instance id; a stuff segment's is its class index plus one.
        """
        segments = np.where(self.instances > 0, self.instances, self.labels.astype(np.int32) + 1)
        info = []
        for segment in np.unique(segments):
            mask = segments == segment
            category = int(self.labels[mask][0])
            box = cv2.boundingRect(mask.astype(np.uint8))
            thing = bool(self.instances[mask][0] > 0)
            info.append({"id": int(segment), "category_id": category, "isthing": thing, "area": int(mask.sum()), "bbox": list(box)})
        return segments, info


class StreetScenes:
    """The street of one seed at one frame size.

    Args:
        width, height: pixels, 32..4096.
        seed: any integer >= 0.
    """

    def __init__(self, width: int, height: int, seed: int) -> None:
        if not (_MIN_SIDE <= width <= _MAX_SIDE and _MIN_SIDE <= height <= _MAX_SIDE):
            limits = f"{_MIN_SIDE}..{_MAX_SIDE} px a side"
            raise DataError(f"street scenes of {width}x{height} px", limits, "give streets:WIDTHxHEIGHT")
        if seed < 0:
            raise DataError(f"street seed {seed}", "an integer >= 0")
        self.width, self.height, self.seed = width, height, seed
        self.world = World(seed)
        self.look = make_look(np.random.default_rng([seed, 2]))
        horizon = int(self.look.horizon * height) + 8
        self._stock = static.Stock.make(np.random.default_rng([seed, 4]), self.world.plan, self.look, width, horizon)
        self._sensor = Sensor(self.look, width, height, np.random.default_rng([seed, 7]))

    def render(self, t: int) -> StreetFrame:
        """Frame number ``t`` (30 a second)."""
        view = self._view(t / FPS)
        canvas = Canvas.blank(self.width, self.height, len(CLASSES))
        items = [item for item in self.world.visible(t / FPS, view.camera_z, FAR_M) if _in_view(view, item)]
        items.sort(key=_sort_depth, reverse=True)
        static.paint_backdrop(canvas, view, self.seed, self.look, self._stock.sky)
        cars = [(i.x, i.z - view.camera_z, figures.car_shape(i.style)[1][-1][0]) for i in items if i.kind == "car"]
        static.paint_ground(canvas, view, self.world, self.look, self._stock.ground, cars)
        for item in items:
            self._paint(canvas, view, item)
        return self._develop(canvas, t)

    def _view(self, time_s: float) -> View:
        look, world = self.look, self.world
        camera_z = world.camera_z(time_s)
        bounce = 0.0015 * np.sin(7.3 * time_s) + 0.002 * np.sin(2.9 * time_s + 1)
        return View(
            width=self.width,
            height=self.height,
            focal_px=look.focal * self.width,
            centre_x=self.width * (0.5 + look.yaw),
            horizon_y=self.height * (look.horizon + float(bounce)),
            camera_x=world.plan.lane_side * world.plan.half_road * 0.5,
            camera_y=look.height_m,
            camera_z=camera_z,
            bend=world.bend(camera_z),
            haze_m=look.haze_m,
            haze_colour=look.haze_colour,
        )

    def _paint(self, canvas: Canvas, view: View, item: Item) -> None:
        if item.kind in ("building", "tree", "hedge"):
            textured = {"building": static.paint_building, "tree": static.paint_tree, "hedge": static.paint_hedge}
            textured[item.kind](canvas, view, item, self.look, self._stock)
        else:
            _PAINTERS[item.kind](canvas, view, item, self.look)

    def _develop(self, canvas: Canvas, t: int) -> StreetFrame:
        ids, labels = np.zeros(256, np.int32), np.zeros(256, np.uint8)
        for slot, (instance, label) in enumerate(canvas.slots):
            ids[slot], labels[slot] = instance, label
        slots = cv2.extractChannel(canvas.pixels, 3)
        image = self._sensor.expose(np.asarray(cv2.cvtColor(canvas.pixels, cv2.COLOR_BGRA2BGR), np.uint8), t)
        return StreetFrame(image, np.asarray(cv2.LUT(slots, labels), np.uint8), np.asarray(slots, np.uint8), ids)


_PAINTERS: dict[str, Callable[[Canvas, View, Item, Any], None]] = {
    "fence": static.paint_fence,
    "railing": static.paint_fence,
    "lamp": static.paint_lamp,
    "bollard": static.paint_bollard,
    "sign": static.paint_sign,
    "light": static.paint_light,
    "car": figures.paint_car,
    "person": figures.paint_person,
    "bicycle": figures.paint_bicycle,
}


def _in_view(view: View, item: Item) -> bool:
    """Whether any part of an item may fall between the left and right edge; every item is under 11 m long or has a size."""
    near, far = item.z - view.camera_z, item.z - view.camera_z + max(item.size, 11.0)
    if far < 0.5:
        return False
    reach = 16.0 if item.kind == "building" else 4.5
    spans = [(view.point(item.x - reach, 0, d)[0], view.point(item.x + reach, 0, d)[0]) for d in (max(near, 1.0), far)]
    return max(right for _, right in spans) > 0 and min(left for left, _ in spans) < view.width


def _sort_depth(item: Item) -> float:
    # Long walls count by their far end: what stands before any part of them must be painted later.
    return item.z + item.size


class Streets(Dataset):
    """``streets``, ``streets:SEED``, ``streets:WxH`` or ``streets:WxH,SEED``: splits train (800), val (100), test (200).

    Every frame has a seed of its own, so a split is as varied as it can be; SEED (0..99) moves all of them at once.
    """

    name = "streets"
    licence = "none needed (procedural)"
    classes = tuple(item.model_copy(update={"thing": index in THINGS}) for index, item in enumerate(CLASSES))
    tasks = ("semantic", "detection", "instance", "panoptic")

    def __init__(self, options: str, split: str) -> None:
        if split not in _SPLIT_SEEDS:
            raise DataError(f"streets: no split {split!r}", ", ".join(_SPLIT_SEEDS), "choose one of them")
        self.split = split
        self.width, self.height, variant = _parse_options(options)
        first, self._count = _SPLIT_SEEDS[split]
        self._first = first + 1000 * variant
        self._prefix = f"{variant}/{split}" if variant else split

    def ids(self) -> list[str]:
        return [f"{self._prefix}/{index:04d}" for index in range(self._count)]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        frame = StreetScenes(self.width, self.height, self._first + index).render(index * 7 % 600)
        return Sample(frame.image, frame.labels, f"{self._prefix}/{index:04d}", *_scene(frame))


def _scene(frame: StreetFrame) -> tuple[Instances, Panoptic]:
    """The frame's things, and all of it as segments."""
    ids, info = frame.panoptic()
    segments = tuple(Segment(item["id"], item["category_id"]) for item in info)
    things = [item for item in info if item["isthing"]]
    masks = np.stack([ids == item["id"] for item in things]) if things else np.zeros((0, *ids.shape), bool)
    masks = masks.astype(np.uint8)
    return Instances(mask_boxes(masks), np.array([item["category_id"] for item in things], np.int64), masks=masks), Panoptic(
        ids, segments
    )


def _parse_options(options: str) -> tuple[int, int, int]:
    width, height, variant = 480, 360, 0
    try:
        for word in filter(None, options.split(",")):
            if "x" in word:
                width, height = (int(side) for side in word.split("x"))
            else:
                variant = int(word)
    except ValueError as error:
        raise DataError(f"streets:{options}", "streets, streets:SEED, streets:WxH or streets:WxH,SEED") from error
    if not 0 <= variant < 100:
        raise DataError(f"streets:{options}: seed {variant}", "0..99")
    return width, height, variant


def write_clip(path: Path, seconds: float, width: int = 1280, height: int = 720, seed: int = CLIP_SEED) -> Path:
    """Render a clip of one street to an MP4 (MPEG-4 part 2) at 30 frames a second, atomically.

    Raises:
        SourceError: the video cannot be written.
    """
    path = Path(path).with_suffix(".mp4")
    street = StreetScenes(width, height, seed)
    with atomic_path(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
        if not writer.isOpened():
            raise SourceError(f"{path}: OpenCV cannot write this video", "an MP4 path on a writable disk", "choose another path")
        try:
            for t in range(max(1, round(seconds * FPS))):
                writer.write(street.render(t).image)
        finally:
            writer.release()
    return path
