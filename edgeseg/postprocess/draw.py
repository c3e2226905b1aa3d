"""Instances and panoptic segments drawn over a frame: filled in a shade of the class's colour, outlined, named."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import native
from edgeseg.manifest import ClassInfo
from edgeseg.scene import Instances, Panoptic

Frame = NDArray[np.uint8]
Colour = tuple[int, int, int]
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MOST = 254  # shades of one picture; the palette's last entry leaves pixels alone


def draw_scene(frame: Frame, scene: Instances | Panoptic, classes: Sequence[ClassInfo]) -> Frame:
    """``draw_instances`` or ``draw_panoptic``, whichever fits."""
    return draw_instances(frame, scene, classes) if isinstance(scene, Instances) else draw_panoptic(frame, scene, classes)


def draw_instances(
    frame: Frame, instances: Instances, classes: Sequence[ClassInfo], alpha: float = 0.5, score: float = 0.5, threads: int = 1
) -> Frame:
    """A copy of the frame with its instances of at least ``score``, the best on top: masks, boxes, keypoints, names and scores.

    Args:
        frame: (H, W, 3) uint8 BGR.
        instances: of that frame; with truth, which has no scores, all are drawn.
        classes: names and colours; each object has a shade of its class's.
        alpha: 0..1, how much of the frame the masks cover.
    """
    out = frame.copy()
    sure = np.ones(len(instances)) if instances.scores is None else instances.scores
    shown = [int(i) for i in np.argsort(-sure, kind="stable") if sure[i] >= score][:_MOST]
    colours = [_shade(classes[int(instances.classes[i])], place) for place, i in enumerate(shown)]
    worst_first = list(zip(shown, colours, strict=True))[::-1]
    if instances.masks is not None:
        owners = np.full(frame.shape[:2], 255, np.uint8)
        for place, i in reversed(list(enumerate(shown))):
            np.copyto(owners, np.uint8(place), where=instances.masks[i] > 0)
        native.overlay(out, owners, _palette(colours), alpha, out, threads=threads)
        for i, colour in worst_first:
            _outline(out, instances.masks[i], colour)
    for i, colour in worst_first:
        if instances.masks is None:
            _box(out, instances.boxes[i], colour)
        if instances.keypoints is not None:
            _points(out, instances.keypoints[i], colour)
    for i, colour in worst_first:
        name = classes[int(instances.classes[i])].name
        text = name if instances.scores is None else f"{name} {instances.scores[i]:.2f}"
        x1, y1, x2, _ = instances.boxes[i]
        _label(out, text, ((x1 + x2) / 2, float(y1)), colour)
    return out


def draw_panoptic(frame: Frame, panoptic: Panoptic, classes: Sequence[ClassInfo], alpha: float = 0.5, threads: int = 1) -> Frame:
    """A copy of the frame with its segments: stuff in the class's colour, things each in a shade of it, all outlined and named.

    Args:
        frame: (H, W, 3) uint8 BGR.
        panoptic: of that frame; void stays as it is.
        classes: names and colours.
        alpha: 0..1, how much of the frame the segments cover.
    """
    out = frame.copy()
    shown = sorted(panoptic.segments, key=lambda segment: -segment.score)[:_MOST]
    colours = [
        _shade(classes[segment.label], place) if classes[segment.label].thing else _bgr(classes[segment.label].colour)
        for place, segment in enumerate(shown)
    ]
    owners = np.full(frame.shape[:2], 255, np.uint8)
    for place, segment in enumerate(shown):
        owners[panoptic.ids == segment.id] = place
    native.overlay(out, owners, _palette(colours), alpha, out, threads=threads)
    for place, (segment, colour) in enumerate(zip(shown, colours, strict=True)):
        mask = (owners == place).astype(np.uint8)
        if mask.any():
            _outline(out, mask, colour)
            item = classes[segment.label]
            text = f"{item.name} {segment.score:.2f}" if item.thing and segment.score < 1 else item.name
            _label(out, text, _inmost(mask), colour)
    return out


def _bgr(colour: tuple[int, int, int]) -> Colour:
    return colour[2], colour[1], colour[0]


def _shade(item: ClassInfo, place: int) -> Colour:
    """The class's colour (BGR), turned and lightened by an amount of its own for each place."""
    hue, light, full = colorsys.rgb_to_hls(*(value / 255 for value in item.colour))
    turn = (place * 0.618034) % 1 - 0.5  # the golden ratio keeps neighbours in the list apart
    lighter = 0.35 + 0.3 * ((place * 0.381966 + 0.5) % 1)
    red, green, blue = colorsys.hls_to_rgb((hue + 0.12 * turn) % 1, (light + lighter) / 2, max(full, 0.5))
    return round(255 * blue), round(255 * green), round(255 * red)


def _palette(colours: Sequence[Colour]) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = np.array(colours, np.uint8).reshape(-1, 3)
    return palette


def _outline(out: Frame, mask: NDArray[np.uint8], colour: Colour) -> None:
    lines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    darker = tuple(value // 2 for value in colour)
    cv2.drawContours(out, lines, -1, darker, _thickness(out))


def _box(out: Frame, box: NDArray[np.float32], colour: Colour) -> None:
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    cv2.rectangle(out, (x1, y1), (x2 - 1, y2 - 1), colour, 2 * _thickness(out))


def _points(out: Frame, points: NDArray[np.float32], colour: Colour) -> None:
    radius = 2 * _thickness(out) + 1
    for x, y, seen in points.tolist():
        if seen > 0 and np.isfinite([x, y]).all() and abs(x) < 1e5 and abs(y) < 1e5:
            centre = round(x - 0.5), round(y - 0.5)
            cv2.circle(out, centre, radius, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(out, centre, radius - 1, colour, -1, cv2.LINE_AA)


def _inmost(mask: NDArray[np.uint8]) -> tuple[float, float]:
    """(x, y) of the pixel that is farthest from the mask's edge and the picture's."""
    depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)


def _label(out: Frame, text: str, centre: tuple[float, float], colour: Colour) -> None:
    """A line of text on a plate of the colour, whole within the picture where it is wide enough."""
    height, width = out.shape[:2]
    scale = max(0.35, min(height, width) / 1000)
    (w, h), below = cv2.getTextSize(text, _FONT, scale, 1)
    left = int(min(max(0, centre[0] - w / 2 - 2), max(0, width - w - 4)))
    top = int(min(max(0, centre[1] - h / 2 - 2), max(0, height - h - below - 4)))
    cv2.rectangle(out, (left, top), (left + w + 3, top + h + below + 3), colour, -1)
    bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(out, text, (left + 2, top + h + 2), _FONT, scale, ink, 1, cv2.LINE_AA)


def _thickness(out: Frame) -> int:
    return max(1, round(min(out.shape[:2]) / 480))
