"""A sheet of a data set's samples: frame, planes, labels, objects and segments side by side, and the classes below."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.postprocess import colorize, palette_bgr

if TYPE_CHECKING:
    from edgeseg.data.base import Dataset, Sample
    from edgeseg.manifest import ClassInfo
    from edgeseg.scene import Instances, Panoptic

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

TILE = (480, 360)
"""Width and height that a frame is fitted into."""
_GAP, _BAR, _ROW = 8, 26, 24
_PAPER, _INK, _FAINT = (250, 250, 250), (30, 30, 30), (120, 120, 120)
_FONT, _TEXT, _SMALL = cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0.4


def sample_sheet(samples: Sequence[Sample], dataset: Dataset) -> Image:
    """(H, W, 3) uint8 BGR: a row a sample, then the colours of the classes that the samples have."""
    rows = [_row(sample, dataset) for sample in samples]
    width = max(row.shape[1] for row in rows)
    parts = [_pad(row, width) for row in rows]
    labels: set[int] = set()
    for sample in samples:
        labels |= set(np.unique(sample.labels).tolist())
        labels |= set(sample.instances.classes.tolist()) if sample.instances is not None else set()
    present = [dataset.classes[label] for label in sorted(labels) if label < len(dataset.classes)]
    parts.append(_legend(present, width, "classes", 255 in labels))
    for place, space in enumerate(dataset.spaces):
        found = set().union(*(np.unique(sample.spaces[place]).tolist() for sample in samples))
        shown = [space.classes[label] for label in sorted(found) if label < len(space.classes)]
        parts.append(_legend(shown, width, space.name, 255 in found))
    return np.asarray(cv2.vconcat(parts), np.uint8)


def _row(sample: Sample, dataset: Dataset) -> Image:
    scale = min(TILE[0] / sample.image.shape[1], TILE[1] / sample.image.shape[0])
    frame = _shrink(np.ascontiguousarray(sample.image[..., :3]), scale)
    tiles = [(sample.id, frame)]
    if sample.image.shape[2] > 3:
        planes = np.ascontiguousarray(np.broadcast_to(sample.image[..., 3:], (*sample.image.shape[:2], 3)))
        tiles.append(("depth" if sample.image.shape[2] == 4 else "disparity, height, angle", _shrink(planes, scale)))
    if (sample.labels != 255).any():
        tiles.append(("labels", _draw_labels(sample.labels, dataset.classes, scale)))
    tiles += [
        (space.name, _draw_labels(labels, space.classes, scale))
        for space, labels in zip(dataset.spaces, sample.spaces, strict=True)
    ]
    if sample.instances is not None:
        tiles.append((f"{len(sample.instances)} objects", draw_objects(frame, sample.instances, dataset.classes, scale)))
    if sample.panoptic is not None:
        title = f"{len(sample.panoptic.segments)} segments"
        tiles.append((title, draw_segments(frame, sample.panoptic, dataset.classes, scale)))
    columns, height = [], frame.shape[0] + _BAR
    for title, tile in tiles:
        columns += [_captioned(title, tile), np.full((height, _GAP, 3), _PAPER, np.uint8)]
    return np.asarray(cv2.hconcat(columns), np.uint8)


# --- tiles -------------------------------------------------------------------------------------------------------


def _draw_labels(labels: Image, classes: Sequence[ClassInfo], scale: float) -> Image:
    small = _shrink(labels, scale, cv2.INTER_NEAREST)
    picture = colorize(small, palette_bgr(classes))
    void = small >= len(classes)
    picture[void] = _hatch(small.shape)[void]
    return _names(picture, _regions(small, classes))


def _hatch(shape: tuple[int, ...]) -> Image:
    """Grey stripes, which stand for void: some classes are black."""
    rows, columns = np.indices(shape[:2])
    return np.where((rows + columns)[..., None] // 4 % 2, np.uint8(92), np.uint8(64)).repeat(3, axis=2)


def _regions(labels: Image, classes: Sequence[ClassInfo]) -> Iterable[tuple[str, tuple[int, int], int]]:
    """Name, place and area of the largest part of each class."""
    for label in np.unique(labels).tolist():
        if label < len(classes):
            yield from _largest_part(labels == label, classes[label].name)


def _largest_part(mask: NDArray[np.bool_], name: str) -> Iterable[tuple[str, tuple[int, int], int]]:
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    if count < 2:
        return
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, w, h, area = stats[best].tolist()
    # The place furthest from the border: the middle of a bent part may lie outside of it.
    inside = np.pad(mask[y : y + h, x : x + w].view(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    yield name, (x + int(column), y + int(row)), area


def draw_objects(frame: Image, instances: Instances, classes: Sequence[ClassInfo], scale: float) -> Image:
    """Masks in colours of their own with outline, box, name and keypoints; crowds are grey. ``scale``: frame / sample."""
    picture = frame.copy()
    crowd = np.zeros(len(instances), bool) if instances.crowd is None else instances.crowd
    names = []
    order = np.argsort(-_areas(instances))
    for rank, place in enumerate(order.tolist()):
        colour = (150, 150, 150) if crowd[place] else _hue(rank)
        if instances.masks is not None:
            mask = _shrink(instances.masks[place], scale, cv2.INTER_NEAREST)
            _tint(picture, mask, colour)
        x1, y1, x2, y2 = (round(float(value) * scale) for value in instances.boxes[place])
        cv2.rectangle(picture, (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1)), colour, 1)
        label = classes[int(instances.classes[place])].name + (" crowd" if crowd[place] else "")
        names.append((label, ((x1 + x2) // 2, y1 + 7), (x2 - x1) * (y2 - y1)))
        if instances.keypoints is not None:
            _draw_points(picture, instances.keypoints[place], scale)
    return _names(picture, names)


def _areas(instances: Instances) -> NDArray[np.float64]:
    if instances.masks is not None:
        return instances.masks.sum(axis=(1, 2), dtype=np.float64)
    return np.prod(instances.boxes[:, 2:] - instances.boxes[:, :2], axis=1, dtype=np.float64)


def _tint(picture: Image, mask: Image, colour: Colour) -> None:
    inside = mask != 0
    picture[inside] = (picture[inside] * 0.45 + np.array(colour) * 0.55).astype(np.uint8)
    outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outline, -1, (255, 255, 255), 1)


def _draw_points(picture: Image, points: NDArray[np.float32], scale: float) -> None:
    for x, y, seen in points.tolist():
        if seen > 0:
            where = int(x * scale), int(y * scale)
            cv2.circle(picture, where, 3, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(picture, where, 2, (80, 255, 80) if seen > 1 else (80, 160, 255), -1, cv2.LINE_AA)


def draw_segments(frame: Image, panoptic: Panoptic, classes: Sequence[ClassInfo], scale: float) -> Image:
    """Segments in shades of their class's colour with white borders, void striped, each with its name."""
    ids = _shrink(panoptic.ids, scale, cv2.INTER_NEAREST)
    picture, names = _hatch(frame.shape), []
    of_class: dict[int, int] = {}
    for segment in panoptic.segments:
        inside = ids == segment.id
        nth = of_class[segment.label] = of_class.get(segment.label, -1) + 1
        picture[inside] = _shade(classes[segment.label].colour, nth if classes[segment.label].thing else 0)
        names += list(_largest_part(inside, classes[segment.label].name + (" crowd" if segment.crowd else "")))
    picture = np.asarray(cv2.addWeighted(picture, 0.8, frame, 0.2, 0), np.uint8)
    border = np.zeros(ids.shape, bool)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    picture[border] = 255
    return _names(picture, names)


# --- colours and text --------------------------------------------------------------------------------------------


def _hue(rank: int) -> Colour:
    """BGR far from its neighbours: steps of the golden ratio around the circle."""
    r, g, b = colorsys.hsv_to_rgb((0.02 + rank * 0.618034) % 1, 0.75, 1.0)
    return round(b * 255), round(g * 255), round(r * 255)


def _shade(colour: Colour, nth: int) -> Colour:
    """BGR of an RGB colour, lighter and darker from object to object."""
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in colour))
    light = light if nth == 0 else 0.25 + 0.55 * ((light + nth * 0.381966) % 1)
    r, g, b = colorsys.hls_to_rgb(hue, light, saturation)
    return round(b * 255), round(g * 255), round(r * 255)


def _names(picture: Image, regions: Iterable[tuple[str, tuple[int, int], int]]) -> Image:
    """Write the names of the largest regions where they lie, none over another."""
    taken: list[tuple[int, int, int, int]] = []
    for name, (x, y), area in sorted(regions, key=lambda region: -region[2]):
        (width, height), base = cv2.getTextSize(name, _FONT, _SMALL, 1)
        left = min(max(x - width // 2, 2), max(picture.shape[1] - width - 2, 2))
        top = min(max(y - height // 2, 2), max(picture.shape[0] - height - base - 2, 2))
        box = left - 2, top - 2, left + width + 2, top + height + base + 1
        if area < 150 or any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        behind = picture[max(box[1], 0) : box[3], max(box[0], 0) : box[2]]
        behind[:] = behind // 4
        cv2.putText(picture, name, (left, top + height), _FONT, _SMALL, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def _shrink(picture: NDArray[Any], scale: float, how: int = cv2.INTER_AREA) -> NDArray[Any]:
    height, width = picture.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=how if scale < 1 else cv2.INTER_NEAREST))


def _captioned(title: str, tile: Image) -> Image:
    """The tile in the middle of a paper that is ``TILE`` wide, its title above."""
    paper = np.full((tile.shape[0] + _BAR, TILE[0], 3), _PAPER, np.uint8)
    while len(title) > 4 and cv2.getTextSize(title, _FONT, _TEXT, 1)[0][0] > TILE[0] - 8:
        title = f"...{title[4:]}"
    cv2.putText(paper, title, (4, _BAR - 9), _FONT, _TEXT, _INK, 1, cv2.LINE_AA)
    height, width = tile.shape[:2]
    left = (TILE[0] - width) // 2
    paper[_BAR : _BAR + height, left : left + width] = tile
    return paper


def _legend(classes: Sequence[ClassInfo], width: int, title: str, void: bool) -> Image:
    cells = [(item.name, item.colour[::-1]) for item in classes] + [("striped: void", (78, 78, 78))] * void
    cell = 34 + max((cv2.getTextSize(name, _FONT, _TEXT, 1)[0][0] for name, _ in cells), default=0) + 16
    columns = max(width // cell, 1)
    paper = np.full((_BAR + _ROW * -(-len(cells) // columns) + _GAP, width, 3), _PAPER, np.uint8)
    cv2.putText(paper, f"{title} in these pictures", (4, _BAR - 9), _FONT, _TEXT, _FAINT, 1, cv2.LINE_AA)
    for place, (name, colour) in enumerate(cells):
        x, y = place % columns * cell + 4, _BAR + place // columns * _ROW
        cv2.rectangle(paper, (x, y + 2), (x + 24, y + 18), colour, -1)
        cv2.rectangle(paper, (x, y + 2), (x + 24, y + 18), _FAINT, 1)
        cv2.putText(paper, name, (x + 32, y + 16), _FONT, _TEXT, _INK, 1, cv2.LINE_AA)
    return paper


def _pad(row: Image, width: int) -> Image:
    return np.asarray(cv2.copyMakeBorder(row, 0, _GAP, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=_PAPER), np.uint8)
