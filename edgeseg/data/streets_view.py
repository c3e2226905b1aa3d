"""Projection and painting for the street scenes: metres in, pixels out, colour and label in one stroke.

The canvas has four channels: B, G, R and a *slot* that names class and instance, so one drawing call keeps picture and
truth identical to the pixel. Slots 0..10 are the classes themselves; each thing in view takes a slot of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # B, G, R, 0..255
Point = tuple[float, float]

NEAR_M, FAR_M = 0.6, 130.0
_SHIFT = 3  # fractional bits of drawn coordinates
_ONE = 1 << _SHIFT
_LIMIT = 1 << 14  # pixels; strokes and discs beyond it are not in view
_MAX_SLOTS = 256


@dataclass(frozen=True)
class View:
    """A pinhole camera on a bending street.

    Street coordinates: x to the right of the road's centre, y up from the ground, d ahead of the camera, all metres.
    The bend shifts everything at distance d sideways by ``bend * d * d / 2``.
    """

    width: int
    height: int
    focal_px: float
    centre_x: float
    horizon_y: float
    camera_x: float
    camera_y: float
    camera_z: float
    bend: float
    haze_m: float
    haze_colour: Colour

    def offset(self, d: float) -> float:
        """Sideways shift in metres, relative to the camera, of the street's centre line at distance ``d``."""
        return 0.5 * self.bend * d * d - self.camera_x

    def scale(self, d: float) -> float:
        """Pixels per metre at distance ``d``."""
        return self.focal_px / max(d, NEAR_M)

    def point(self, x: float, y: float, d: float) -> Point:
        """Pixel of a point in street coordinates; distances before the near plane are pulled onto it."""
        if d < NEAR_M:
            d = NEAR_M
        scale = self.focal_px / d
        return self.centre_x + scale * (x + 0.5 * self.bend * d * d - self.camera_x), self.horizon_y + scale * (self.camera_y - y)

    def fade(self, colour: Sequence[float], d: float, light: float = 1.0) -> Colour:
        """A colour under ``light``, seen through ``d`` metres of haze."""
        keep = exp(-max(d, 0.0) / self.haze_m)
        lit, lost = keep * light, 1 - keep
        haze = self.haze_colour
        return colour[0] * lit + haze[0] * lost, colour[1] * lit + haze[1] * lost, colour[2] * lit + haze[2] * lost

    def fade_picture(self, picture: NDArray[np.uint8], d: float, light: float = 1.0) -> NDArray[np.uint8]:
        """``fade`` for an (h, w, 3) uint8 picture."""
        keep = exp(-max(d, 0.0) / self.haze_m)
        haze = self.haze_colour
        row = np.array([[keep * light, 0, 0, haze[0]], [0, keep * light, 0, haze[1]], [0, 0, keep * light, haze[2]]])
        row[:, 3] *= 1 - keep
        return np.asarray(cv2.transform(picture, row), np.uint8)


@dataclass
class Canvas:
    """The four-channel picture being painted, far to near.

    Attributes:
        pixels: (H, W, 4) uint8, B, G, R, slot.
        slots: instance id and class of each slot; the first ``len(classes)`` are the classes with id 0.
    """

    pixels: NDArray[np.uint8]
    slots: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def blank(cls, width: int, height: int, num_classes: int) -> Canvas:
        return cls(np.zeros((height, width, 4), np.uint8), [(0, index) for index in range(num_classes)])

    def take_slot(self, instance: int, label: int) -> int:
        """A slot for a thing; when all 256 are taken, the class's own slot (only far specks lose their identity)."""
        if len(self.slots) >= _MAX_SLOTS:
            return label
        self.slots.append((instance, label))
        return len(self.slots) - 1

    def polygon(self, points: Sequence[Point], colour: Sequence[float], slot: int) -> None:
        """Fill a convex or concave polygon given in pixels; fewer than three corners are nothing."""
        if len(points) > 2:
            cv2.fillPoly(self.pixels, [fixed(points)], (*colour, slot), cv2.LINE_8, _SHIFT)

    def line(self, start: Point, end: Point, width_px: float, colour: Sequence[float], slot: int) -> None:
        """A stroke with round ends, at least one pixel wide."""
        if not (_visible(start) and _visible(end)):
            return
        first = int(start[0] * _ONE), int(start[1] * _ONE)
        last = int(end[0] * _ONE), int(end[1] * _ONE)
        cv2.line(self.pixels, first, last, (*colour, slot), max(1, round(width_px)), cv2.LINE_8, _SHIFT)

    def outline(self, points: Sequence[Point], width_px: float, colour: Sequence[float], slot: int) -> None:
        """The closed outline of a polygon."""
        cv2.polylines(self.pixels, [fixed(points)], True, (*colour, slot), max(1, round(width_px)), cv2.LINE_8, _SHIFT)

    def disc(self, centre: Point, radius_px: float, colour: Sequence[float], slot: int) -> None:
        """A filled circle."""
        if _visible(centre):
            at = int(centre[0] * _ONE), int(centre[1] * _ONE)
            cv2.circle(self.pixels, at, max(int(radius_px * _ONE), _ONE // 2), (*colour, slot), -1, cv2.LINE_8, _SHIFT)

    def relabel(self, points: Sequence[Point], slot: int) -> None:
        """Give a polygon another label but leave its colours: what shows through a fence is fence."""
        corners = fixed(points)
        x, y, w, h = cv2.boundingRect(corners)
        x, y, w, h = x // _ONE, y // _ONE, w // _ONE + 2, h // _ONE + 2
        window = self.pixels[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
        if window.size:
            mask = np.zeros(window.shape[:2], np.uint8)
            cv2.fillPoly(mask, [corners - [max(x, 0) * _ONE, max(y, 0) * _ONE]], 1, cv2.LINE_8, _SHIFT)
            window[..., 3][mask > 0] = slot

    def sprite(self, picture: NDArray[np.uint8], mask: NDArray[np.uint8], box: Sequence[float], slot: int) -> None:
        """Paste a picture where its mask is set.

        Args:
            picture: (h, w, 3) uint8, already lit and hazed.
            mask: (h, w) uint8, painted where at least 128 after scaling.
            box: left, top, width, height on the canvas in pixels.
            slot: label of the pasted pixels.
        """
        left, top, width, height = box
        x0, y0, x1, y1 = max(int(left), 0), max(int(top), 0), int(left + width) + 1, int(top + height) + 1
        window = self.pixels[y0 : max(y1, 0), x0 : max(x1, 0)]
        if not window.size or width < 1 or height < 1:
            return
        sx, sy = picture.shape[1] / width, picture.shape[0] / height
        matrix = np.array([[sx, 0, (x0 - left) * sx], [0, sy, (y0 - top) * sy]])
        size = window.shape[1], window.shape[0]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        scaled = cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpAffine(mask, matrix, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        inside = cv2.threshold(inside, 127, 255, cv2.THRESH_BINARY)[1]
        painted = cv2.cvtColor(scaled, cv2.COLOR_BGR2BGRA)
        painted[..., 3] = slot
        cv2.copyTo(painted, inside, window)

    def texture(self, picture: NDArray[np.uint8], corners: Sequence[Point], slot: int) -> None:
        """Warp a picture onto the quadrilateral top left, top right, bottom right, bottom left (pixels)."""
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        height, width = self.pixels.shape[:2]
        x0, x1 = max(int(min(xs)), 0), min(int(max(xs)) + 2, width)
        y0, y1 = max(int(min(ys)), 0), min(int(max(ys)) + 2, height)
        if x1 - x0 < 1 or y1 - y0 < 1:
            return
        h, w = picture.shape[:2]
        source = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32) - 0.5
        target = np.array(corners, np.float32) - (x0, y0)
        matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            return
        window = self.pixels[y0:y1, x0:x1]
        warped = cv2.warpPerspective(picture, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        painted = cv2.cvtColor(warped, cv2.COLOR_BGR2BGRA)
        painted[..., 3] = slot
        mask = np.zeros(window.shape[:2], np.uint8)
        cv2.fillPoly(mask, [fixed([(x - x0, y - y0) for x, y in corners])], 255, cv2.LINE_8, _SHIFT)
        cv2.copyTo(painted, mask, window)


def _visible(point: Point) -> bool:
    return abs(point[0]) < _LIMIT and abs(point[1]) < _LIMIT


def fixed(points: Sequence[Point]) -> NDArray[np.int32]:
    """(N, 2) int32 fixed-point coordinates for OpenCV's drawing calls."""
    return (np.array(points, np.float64) * _ONE).astype(np.int32)


def clip_near(outline: Sequence[tuple[float, float]], near_m: float = NEAR_M) -> list[tuple[float, float]]:
    """A polygon of (distance, height) cut off at the near plane (Sutherland and Hodgman 1974)."""
    out = []
    for (d0, y0), (d1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if d0 >= near_m:
            out.append((d0, y0))
        if (d0 >= near_m) != (d1 >= near_m):
            out.append((near_m, y0 + (y1 - y0) * (near_m - d0) / (d1 - d0)))
    return out
